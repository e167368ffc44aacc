//! The administrator's kubeconfig.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_server::pki::Leaf;

/// Renders a kubeconfig with a client certificate.
pub(crate) fn render(server: &str, ca: &str, leaf: &Leaf) -> String {
    let [ca, certificate, key] =
        [ca, &leaf.certificate, &leaf.key].map(|text| STANDARD.encode(text));
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: evenkeel\n\
         \x20 cluster:\n\
         \x20   server: {server}\n\
         \x20   certificate-authority-data: {ca}\n\
         users:\n\
         - name: admin\n\
         \x20 user:\n\
         \x20   client-certificate-data: {certificate}\n\
         \x20   client-key-data: {key}\n\
         contexts:\n\
         - name: evenkeel\n\
         \x20 context:\n\
         \x20   cluster: evenkeel\n\
         \x20   user: admin\n\
         current-context: evenkeel\n"
    )
}

/// Writes a file that only its owner may read, as a whole or not at all.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let context = || format!("can't write kubeconfig {}", path.display());
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .with_context(context)?;
    file.write_all(text.as_bytes()).with_context(context)?;
    fs::rename(&fresh, path).with_context(context)
}
