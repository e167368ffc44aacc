//! The smallest image there is: one program that waits for ever, written here byte by byte, so
//! that a test needs neither a compiler nor a registry.

use std::path::Path;

use serde_json::json;
use sha2::Digest as _;

/// Where the program is loaded.
const BASE: u64 = 0x0040_0000;
/// ELF header and one program header.
const HEADERS: u64 = 64 + 56;

/// `loop { pause() }` as an ELF file for x86-64.
fn program() -> Vec<u8> {
    // mov eax, 34 (pause); syscall; jmp to the start
    let code = [0xb8, 0x22, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
    let size = HEADERS + code.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Executable, x86-64, version.
    out.extend([2, 0, 0x3e, 0, 1, 0, 0, 0]);
    // Entry, program headers, no sections.
    for number in [BASE + HEADERS, 64, 0] {
        out.extend(number.to_le_bytes());
    }
    out.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // One segment to load, readable and executable: the whole file.
    out.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for number in [0, BASE, BASE, size, size, 0x1000] {
        out.extend(number.to_le_bytes());
    }
    out.extend(code);
    out
}

fn add(tar: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    tar.append_data(&mut header, name, bytes).unwrap();
}

/// Writes a docker-archive whose one program is `/NAME`.
pub(crate) fn write(path: &Path, name: &str) {
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, name, 0o755, &program());
    let layer = layer.into_inner().unwrap();
    let hex = |bytes: &[u8]| -> String {
        sha2::Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": [format!("/{name}")]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    })
    .to_string();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let manifest = json!([{"Config": config_name, "RepoTags": ["example.com/hold:1"],
        "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    add(
        &mut archive,
        "manifest.json",
        0o644,
        manifest.to_string().as_bytes(),
    );
    add(&mut archive, &config_name, 0o644, config.as_bytes());
    add(&mut archive, "layer.tar", 0o644, &layer);
    std::fs::write(path, archive.into_inner().unwrap()).unwrap();
}
