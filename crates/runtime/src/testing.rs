//! Images for tests, assembled from Debian's `busybox-static`, and a network that connects
//! nothing. For the tests of this and other crates; nothing here is used in production.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;

use crate::contract::{Result, SandboxConfig, SandboxNetwork};
use crate::image::config::digest;

/// Where Debian's package puts the static busybox.
pub const BUSYBOX: &str = "/usr/bin/busybox";

/// Commands that get a link to busybox.
const APPLETS: &str = "sh cat echo env id ls mkdir mount umount sleep ps pwd rm sed grep head tail \
    touch true false test wc yes dd hostname kill ln mknod nc chown chmod chroot unshare stty tty \
    printf seq tar timeout wget httpd nslookup ip ping stat df date cut tr sort free nproc ulimit \
    setsid sync usleep vi which whoami xargs";

/// A file of an image under assembly.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A directory with its mode.
    Dir(String, u32),
    /// A file with its mode and content.
    File(String, u32, Vec<u8>),
    /// A symbolic link and its target.
    Link(String, String),
    /// A hard link and its target.
    Hard(String, String),
}

/// An image under assembly; [`ImageBuilder::docker_archive`] and [`ImageBuilder::oci_layout`]
/// write it.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    /// Layers, the lowest first.
    pub layers: Vec<Vec<Entry>>,
    /// The `config` object of the image configuration.
    pub config: serde_json::Value,
    /// `amd64` …; this machine's when not changed.
    pub architecture: String,
}

impl ImageBuilder {
    /// One layer with busybox, its links, and the account files.
    ///
    /// # Errors
    /// When busybox-static is not installed.
    pub fn busybox() -> io::Result<Self> {
        let busybox = fs::read(BUSYBOX).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{BUSYBOX} (install busybox-static): {error}"),
            )
        })?;
        let dir = |path: &str, mode| Entry::Dir(path.to_owned(), mode);
        let file =
            |path: &str, text: &str| Entry::File(path.to_owned(), 0o644, text.as_bytes().to_vec());
        let mut layer = vec![
            dir("bin", 0o755),
            dir("etc", 0o755),
            dir("tmp", 0o1777),
            dir("root", 0o700),
            dir("home", 0o755),
            Entry::File("bin/busybox".to_owned(), 0o755, busybox),
            file(
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001:user:/home:/bin/sh\n",
            ),
            file("etc/group", "root:x:0:\nuser:x:1001:\naudio:x:29:user\n"),
        ];
        for applet in APPLETS.split_whitespace() {
            layer.push(Entry::Link(format!("bin/{applet}"), "busybox".to_owned()));
        }
        Ok(Self {
            layers: vec![layer],
            config: serde_json::json!({
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": ["sh"],
            }),
            architecture: crate::image::config::architecture().to_owned(),
        })
    }

    /// The uncompressed tar of a layer.
    ///
    /// # Errors
    /// Never with sensible entries.
    pub fn layer_tar(entries: &[Entry]) -> io::Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for entry in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mtime(1_700_000_000);
            header.set_uid(0);
            header.set_gid(0);
            let (path, mode, kind) = match entry {
                Entry::Dir(path, mode) => (path, *mode, tar::EntryType::Directory),
                Entry::File(path, mode, _) => (path, *mode, tar::EntryType::Regular),
                Entry::Link(path, _) => (path, 0o777, tar::EntryType::Symlink),
                Entry::Hard(path, _) => (path, 0o644, tar::EntryType::Link),
            };
            header.set_mode(mode);
            header.set_entry_type(kind);
            header.set_size(0);
            // Written as they are, since tests also need names that no honest tool writes.
            let raw = header.as_old_mut();
            raw.name[..path.len()].copy_from_slice(path.as_bytes());
            if let Entry::Link(_, target) | Entry::Hard(_, target) = entry {
                raw.linkname[..target.len()].copy_from_slice(target.as_bytes());
            }
            let content: &[u8] = match entry {
                Entry::File(_, _, content) => content,
                _ => &[],
            };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content)?;
        }
        builder.into_inner()
    }

    /// The image configuration and the layers' tars.
    ///
    /// # Errors
    /// As [`Self::layer_tar`].
    pub fn parts(&self) -> io::Result<(Vec<u8>, Vec<Vec<u8>>)> {
        let tars: Vec<Vec<u8>> = self
            .layers
            .iter()
            .map(|layer| Self::layer_tar(layer))
            .collect::<io::Result<_>>()?;
        let config = serde_json::json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": {
                "type": "layers",
                "diff_ids": tars.iter().map(|tar| digest(tar)).collect::<Vec<_>>(),
            },
        });
        Ok((serde_json::to_vec(&config)?, tars))
    }

    /// Writes a docker-archive.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn docker_archive(&self, name: &str, file: &Path) -> io::Result<()> {
        let (config, tars) = self.parts()?;
        let config_name = format!("{}.json", &digest(&config)[7..]);
        let layer_names: Vec<String> = tars
            .iter()
            .map(|tar| format!("{}/layer.tar", &digest(tar)[7..]))
            .collect();
        let manifest = serde_json::json!([{
            "Config": config_name, "RepoTags": [name], "Layers": layer_names,
        }]);
        let mut out = tar::Builder::new(fs::File::create(file)?);
        append(&mut out, &config_name, &config)?;
        for (name, tar) in layer_names.iter().zip(&tars) {
            append(&mut out, name, tar)?;
        }
        append(&mut out, "manifest.json", &serde_json::to_vec(&manifest)?)?;
        out.into_inner()?.flush()
    }

    /// Writes an OCI layout as tar, with layers compressed by `compress`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn oci_layout(&self, name: &str, file: &Path, compress: Compression) -> io::Result<()> {
        let (config, tars) = self.parts()?;
        let layers: Vec<Vec<u8>> = tars
            .iter()
            .map(|tar| compress.apply(tar))
            .collect::<io::Result<_>>()?;
        let manifest = manifest(&config, &layers, compress);
        let manifest = serde_json::to_vec(&manifest)?;
        let index = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(&manifest), "size": manifest.len(),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }],
        });
        let mut out = tar::Builder::new(fs::File::create(file)?);
        append(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut out, "index.json", &serde_json::to_vec(&index)?)?;
        for blob in layers.iter().chain([&config, &manifest]) {
            append(
                &mut out,
                &format!("blobs/sha256/{}", &digest(blob)[7..]),
                blob,
            )?;
        }
        out.into_inner()?.flush()
    }
}

/// The OCI manifest of a configuration and its (compressed) layers.
#[must_use]
pub fn manifest(config: &[u8], layers: &[Vec<u8>], compress: Compression) -> serde_json::Value {
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(config), "size": config.len(),
        },
        "layers": layers.iter().map(|layer| serde_json::json!({
            "mediaType": compress.media_type(), "digest": digest(layer), "size": layer.len(),
        })).collect::<Vec<_>>(),
    })
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// Compresses bytes.
    ///
    /// # Errors
    /// Never in practice.
    pub fn apply(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(bytes.to_vec()),
            Self::Gzip => {
                let mut out =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                out.write_all(bytes)?;
                out.finish()
            }
            Self::Zstd => zstd::stream::encode_all(bytes, 1),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

fn append(out: &mut tar::Builder<fs::File>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    out.append_data(&mut header, name, bytes)
}

/// Writes a docker-archive with busybox, named `name`, to a fresh file in the system's temporary
/// directory and answers its path. The caller removes it.
///
/// # Errors
/// When busybox-static is not installed or the file can't be written.
pub fn busybox_image(name: &str) -> io::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("evenkeel-{}.tar", crate::files::random_id()));
    ImageBuilder::busybox()?.docker_archive(name, &path)?;
    Ok(path)
}

/// A network that gives every sandbox the same made-up address and no link.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoNetwork;

impl SandboxNetwork for NoNetwork {
    fn attach<'a>(
        &'a self,
        _sandbox_id: &'a str,
        _config: &'a SandboxConfig,
        _netns: &'a Path,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![IpAddr::from([192, 0, 2, 1])]) })
    }

    fn detach<'a>(
        &'a self,
        _sandbox_id: &'a str,
        _config: &'a SandboxConfig,
        _netns: &'a Path,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
