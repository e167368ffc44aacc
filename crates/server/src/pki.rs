//! Certificates and keys: made at first start, renewed before they end.
//!
//! One certificate authority signs everything: the door's own certificate, the administrator's
//! and the agents'. A second one vouches for the door alone towards servers behind it, which
//! believe whoever it vouches for about who asks. A leaf lives a year (or as long as it is told) and is made anew when a third of
//! that is left, at start and while running ([`live`]); the authority lives ten years.

pub mod join;
mod live;
pub mod request;

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};

use crate::auth::SigningKeys;

pub use live::LiveLeaf;

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;

/// Why certificates can't be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file has something else in it.
    #[error(
        "{path} is damaged: {why}; remove the pki directory to start over with new certificates"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A certificate can't be made.
    #[error("can't make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A certificate request can't be signed.
    #[error("{0}")]
    Request(String),
    /// TLS can't be set up with what there is.
    #[error("TLS: {0}")]
    Tls(String),
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// PEM.
    pub certificate: String,
    /// PEM, PKCS #8.
    pub key: String,
}

/// What a leaf is for.
#[derive(Debug, Clone, Default)]
pub struct LeafSpec {
    /// File name without ending.
    pub name: String,
    /// Common name: the user.
    pub common_name: String,
    /// Organizations: the groups.
    pub organizations: Vec<String>,
    /// DNS names that it serves.
    pub dns_names: Vec<String>,
    /// Addresses that it serves.
    pub addresses: Vec<IpAddr>,
    /// For clients?
    pub client: bool,
    /// For servers?
    pub server: bool,
    /// Signed by the authority for front proxies?
    pub front_proxy: bool,
}

/// The certificate authority and the directory of leaves.
pub struct Pki {
    directory: PathBuf,
    ca_pem: String,
    ca_key_pem: String,
    front: Leaf,
    token_pem: String,
    leaf_validity: SignedDuration,
    live: parking_lot::Mutex<Vec<Arc<LiveLeaf>>>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File {
            path: path.display().to_string(),
            source,
        }),
    }
}

/// Writes a file as a whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let fail = |source| PkiError::File {
        path: path.display().to_string(),
        source,
    };
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&fresh)
        .map_err(fail)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    fs::rename(&fresh, path).map_err(fail)
}

fn validity(params: &mut CertificateParams, now: Timestamp, life: SignedDuration) {
    // A minute of slack for clocks that differ.
    let start = now
        .checked_sub(SignedDuration::from_secs(60))
        .unwrap_or(now);
    let end = now.checked_add(life).unwrap_or(now);
    let at = |time: Timestamp| std::time::SystemTime::from(time).into();
    params.not_before = at(start);
    params.not_after = at(end);
}

impl Pki {
    /// Reads the directory, making the authority and the token key at first.
    ///
    /// # Errors
    /// A file can't be read, written, or is damaged.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, PkiError> {
        fs::create_dir_all(directory).map_err(|source| PkiError::File {
            path: directory.display().to_string(),
            source,
        })?;
        let ca = authority(directory, "ca", "evenkeel-ca", now)?;
        let front = authority(directory, "front-proxy-ca", "evenkeel-front-proxy-ca", now)?;
        let token_path = directory.join("sa.key");
        let token_pem = match read(&token_path)? {
            Some(pem) => pem,
            None => {
                let pem = KeyPair::generate()?.serialize_pem();
                write(&token_path, &pem, 0o600)?;
                pem
            }
        };
        SigningKeys::new(&token_pem).map_err(|error| PkiError::Damaged {
            path: token_path.display().to_string(),
            why: error.to_string(),
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            ca_pem: ca.certificate,
            ca_key_pem: ca.key,
            front,
            token_pem,
            leaf_validity: SignedDuration::from_hours(LEAF_DAYS * 24),
            live: parking_lot::Mutex::default(),
        })
    }

    /// With leaves that live so long.
    #[must_use]
    pub fn with_leaf_validity(mut self, life: SignedDuration) -> Self {
        self.leaf_validity = life;
        self
    }

    /// A leaf is made anew when less than this is left: long enough for a machine that is off for
    /// a season.
    fn renew_before(&self) -> SignedDuration {
        self.leaf_validity / 3
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn ca(&self) -> &str {
        &self.ca_pem
    }

    /// The certificate of the authority for front proxies, PEM.
    #[must_use]
    pub fn front_proxy_ca(&self) -> &str {
        &self.front.certificate
    }

    /// The authority that signs a leaf: certificate and key, PEM.
    fn authority_of(&self, spec: &LeafSpec) -> (&str, &str) {
        if spec.front_proxy {
            (&self.front.certificate, &self.front.key)
        } else {
            (&self.ca_pem, &self.ca_key_pem)
        }
    }

    /// Signs tokens by the key of the directory.
    ///
    /// # Panics
    /// Never: the key was read when the directory was opened.
    #[must_use]
    pub fn token_keys(&self) -> SigningKeys {
        SigningKeys::new(&self.token_pem).expect("the key was read at open")
    }

    /// The leaf of a specification: the one on disk, or a new one when that is missing, ending,
    /// of another authority, or lacks a name.
    ///
    /// # Errors
    /// It can't be read, made or written.
    pub fn leaf(&self, spec: &LeafSpec, now: Timestamp) -> Result<Leaf, PkiError> {
        let cert_path = self.directory.join(format!("{}.crt", spec.name));
        let key_path = self.directory.join(format!("{}.key", spec.name));
        if let (Some(certificate), Some(key)) = (read(&cert_path)?, read(&key_path)?)
            && self.is_good(&certificate, &key, spec, now)
        {
            return Ok(Leaf { certificate, key });
        }
        let leaf = self.sign(spec, now)?;
        write(&key_path, &leaf.key, 0o600)?;
        write(&cert_path, &leaf.certificate, 0o644)?;
        Ok(leaf)
    }

    fn is_good(&self, certificate: &str, key: &str, spec: &LeafSpec, now: Timestamp) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(certificate.as_bytes()) else {
            return false;
        };
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&der) else {
            return false;
        };
        let (authority, _) = self.authority_of(spec);
        let Ok(ca) = CertificateDer::from_pem_slice(authority.as_bytes()) else {
            return false;
        };
        let Ok((_, ca)) = x509_parser::parse_x509_certificate(&ca) else {
            return false;
        };
        let left = parsed.validity().not_after.timestamp() - now.as_second();
        let names: Vec<String> = parsed
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|extension| {
                extension
                    .value
                    .general_names
                    .iter()
                    .filter_map(|name| match name {
                        x509_parser::extensions::GeneralName::DNSName(name) => {
                            Some((*name).to_owned())
                        }
                        x509_parser::extensions::GeneralName::IPAddress(bytes) => address(bytes),
                        _ => None,
                    })
                    .collect()
            })
            .unwrap_or_default();
        let wanted = spec
            .dns_names
            .iter()
            .cloned()
            .chain(spec.addresses.iter().map(IpAddr::to_string));
        left > self.renew_before().as_secs()
            // One that outlives what is asked for now was made under another setting.
            && left <= self.leaf_validity.as_secs()
            && parsed.verify_signature(Some(ca.public_key())).is_ok()
            && KeyPair::from_pem(key).is_ok_and(|key| {
                key.public_key_raw() == parsed.public_key().subject_public_key.data.as_ref()
            })
            && wanted.into_iter().all(|name| names.contains(&name))
    }

    fn sign(&self, spec: &LeafSpec, now: Timestamp) -> Result<Leaf, PkiError> {
        let (authority, key) = self.authority_of(spec);
        let issuer = Issuer::from_ca_cert_pem(authority, KeyPair::from_pem(key)?)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(spec.dns_names.clone())?;
        params.subject_alt_names.extend(
            spec.addresses
                .iter()
                .map(|address| SanType::IpAddress(*address)),
        );
        let mut subject = DistinguishedName::new();
        for organization in &spec.organizations {
            subject.push(DnType::OrganizationName, organization.as_str());
        }
        subject.push(DnType::CommonName, spec.common_name.as_str());
        params.distinguished_name = subject;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        if spec.client {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if spec.server {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        validity(&mut params, now, self.leaf_validity);
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Leaf {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// A leaf that is kept nowhere here: for somebody else's machine.
    ///
    /// # Errors
    /// It can't be made.
    pub fn issue(&self, spec: &LeafSpec, now: Timestamp) -> Result<Leaf, PkiError> {
        self.sign(spec, now)
    }

    /// TLS for a server that asks clients for a certificate; `required` refuses those without.
    ///
    /// # Errors
    /// The leaf can't be used.
    pub fn server_config(&self, leaf: &Leaf, required: bool) -> Result<ServerConfig, PkiError> {
        server_config(&self.ca_pem, leaf, required)
    }

    /// TLS for the door: clients may show a certificate of the cluster's authority or of one for
    /// front proxies (PEM). Which of them vouches for whom is found out by [`Vouched`].
    ///
    /// # Errors
    /// The leaf or an authority can't be used.
    pub fn door_config(&self, leaf: &Leaf, front_ca: &str) -> Result<ServerConfig, PkiError> {
        let (chain, key) = identity(leaf)?;
        server_builder(&format!("{}\n{front_ca}", self.ca_pem), false)?
            .with_single_cert(chain, key)
            .map_err(|error| PkiError::Tls(error.to_string()))
    }
}

/// Which authorities vouch for a client's certificate.
#[derive(Debug)]
pub struct Vouched {
    clients: Arc<dyn ClientCertVerifier>,
    fronts: Arc<dyn ClientCertVerifier>,
}

impl Vouched {
    /// By the authority of clients and by that of front proxies, PEM.
    ///
    /// # Errors
    /// One of them is none.
    pub fn new(client_ca: &str, front_ca: &str) -> Result<Self, PkiError> {
        let verifier = |pem: &str| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider)
                .build()
                .map_err(|error| PkiError::Tls(error.to_string()))
        };
        Ok(Self {
            clients: verifier(client_ca)?,
            fronts: verifier(front_ca)?,
        })
    }

    /// Is it a client's, and is it a front proxy's? `chain` begins with the certificate itself.
    #[must_use]
    pub fn of(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> (bool, bool) {
        let Some((leaf, between)) = chain.split_first() else {
            return (false, false);
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let by = |verifier: &Arc<dyn ClientCertVerifier>| {
            verifier.verify_client_cert(leaf, between, now).is_ok()
        };
        (by(&self.clients), by(&self.fronts))
    }
}

/// An authority of the directory, made if it is not there yet.
fn authority(directory: &Path, file: &str, name: &str, now: Timestamp) -> Result<Leaf, PkiError> {
    let cert_path = directory.join(format!("{file}.crt"));
    let key_path = directory.join(format!("{file}.key"));
    match (read(&cert_path)?, read(&key_path)?) {
        (Some(certificate), Some(key)) => Ok(Leaf {
            certificate,
            key: request::pkcs8(key),
        }),
        // A key alone: a crash between the two files, and nothing was signed yet.
        (None, _) => {
            let made = make_ca(name, now)?;
            write(&key_path, &made.key, 0o600)?;
            write(&cert_path, &made.certificate, 0o644)?;
            Ok(made)
        }
        (Some(_), None) => Err(PkiError::Damaged {
            path: key_path.display().to_string(),
            why: format!("it is missing though {file}.crt is there"),
        }),
    }
}

/// The authorities of a PEM text as the only roots.
fn roots(ca_pem: &str) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let ca = ca.map_err(|error| PkiError::Tls(error.to_string()))?;
        roots
            .add(ca)
            .map_err(|error| PkiError::Tls(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(PkiError::Tls("no certificate authority".to_owned()));
    }
    Ok(roots)
}

/// TLS for a server that asks clients for a certificate of an authority; `required` refuses those
/// without.
///
/// # Errors
/// The leaf or the authority can't be used.
pub fn server_config(ca_pem: &str, leaf: &Leaf, required: bool) -> Result<ServerConfig, PkiError> {
    let (chain, key) = identity(leaf)?;
    server_builder(ca_pem, required)?
        .with_single_cert(chain, key)
        .map_err(|error| PkiError::Tls(error.to_string()))
}

fn server_builder(
    ca_pem: &str,
    required: bool,
) -> Result<ConfigBuilder<ServerConfig, WantsServerCert>, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots(ca_pem)?),
        Arc::clone(&provider),
    );
    let verifier = if required {
        verifier
    } else {
        verifier.allow_unauthenticated()
    };
    let verifier = verifier
        .build()
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    Ok(builder.with_client_cert_verifier(verifier))
}

/// TLS for a client that trusts only that authority.
fn client_builder(ca_pem: &str) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, PkiError> {
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| PkiError::Tls(error.to_string()))?;
    Ok(builder.with_root_certificates(roots(ca_pem)?))
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|sixteen| IpAddr::from(sixteen).to_string())
}

/// The certificate with those that are to be shown beside it, and the key.
fn identity(
    leaf: &Leaf,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(leaf.key.as_bytes())
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    Ok((chain, PrivateKeyDer::Pkcs8(key)))
}

fn make_ca(name: &str, now: Timestamp) -> Result<Leaf, PkiError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    validity(&mut params, now, SignedDuration::from_hours(CA_DAYS * 24));
    let certificate = params.self_signed(&key)?;
    Ok(Leaf {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}
