//! Signs certificate requests: `PermissiveSigningPolicy` of the reference.
//!
//! Subject, key and alternative names are taken from the request byte for byte, so that nothing
//! is lost or read differently by us than by whoever checks the certificate; all other extensions
//! are ours. Whether a request may be signed is not asked here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    SigningKey as _,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::pem::{Pem, parse_x509_pem};
use x509_parser::prelude::FromDer as _;

use super::{Pki, PkiError};

/// The longest life of a certificate, `--cluster-signing-duration` of the reference.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(365 * 24);
/// The shortest.
pub const SHORTEST: SignedDuration = SignedDuration::from_mins(10);
/// Certificates begin a little before they are signed: clocks differ.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// One that lives less ends when it was asked to.
const SHORT: SignedDuration = SignedDuration::from_hours(8);

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const NULL: u8 = 0x05;
const OCTET_STRING: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const OID: u8 = 0x06;

/// Bits of `KeyUsage` (RFC 5280, 4.2.1.3) by the names of the certificates API.
const USAGES: [(&str, u8); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// Purposes of `ExtendedKeyUsage` by the names of the certificates API, as encoded identifiers.
const PURPOSES: [(&str, &[u8]); 13] = [
    ("any", &[0x55, 0x1d, 0x25, 0x00]),
    ("server auth", &[0x2b, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[0x2b, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[0x2b, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[0x2b, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[0x2b, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[0x2b, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[0x2b, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[0x2b, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[0x2b, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[0x2b, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 3]),
    (
        "netscape sgc",
        &[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1],
    ),
];

pub(super) fn pem_block(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let used = length
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(length.len() - 1);
    match (content.len(), &length[used..]) {
        (0..=0x7f, [byte]) => out.push(*byte),
        (_, bytes) => {
            out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(8));
            out.extend_from_slice(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

/// UTCTime up to 2049, GeneralizedTime from then on (RFC 5280, 4.1.2.5).
fn time(at: Timestamp) -> Vec<u8> {
    let year = at.to_zoned(jiff::tz::TimeZone::UTC).year();
    if year < 2050 {
        tlv(0x17, at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        tlv(0x18, at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = vec![tlv(OID, id)];
    if critical {
        parts.push(tlv(BOOLEAN, &[0xff]));
    }
    parts.push(tlv(OCTET_STRING, value));
    sequence(&parts)
}

/// A bit string of named bits: no zeros at its end.
fn bits(set: u16) -> Vec<u8> {
    let bytes = set.to_be_bytes();
    let length = if bytes[1] != 0 { 2 } else { 1 };
    let unused = u8::try_from(bytes[length - 1].trailing_zeros().min(7)).unwrap_or(0);
    let mut content = vec![unused];
    content.extend_from_slice(&bytes[..length]);
    tlv(BIT_STRING, &content)
}

fn usages(asked: &[String]) -> Result<Vec<Vec<u8>>, PkiError> {
    let (mut set, mut purposes, mut unknown) = (0_u16, Vec::new(), Vec::new());
    for usage in asked {
        if let Some((_, bit)) = USAGES.iter().find(|(name, _)| name == usage) {
            set |= 0x8000 >> bit;
        } else if let Some((_, id)) = PURPOSES.iter().find(|(name, _)| name == usage) {
            let id = tlv(OID, id);
            if !purposes.contains(&id) {
                purposes.push(id);
            }
        } else {
            unknown.push(format!("{usage:?}"));
        }
    }
    if !unknown.is_empty() {
        let why = format!("unrecognized usage values: [{}]", unknown.join(" "));
        return Err(PkiError::Request(why));
    }
    let mut out = Vec::new();
    if set != 0 {
        out.push(extension(&[0x55, 0x1d, 0x0f], true, &bits(set)));
    }
    if !purposes.is_empty() {
        out.push(extension(&[0x55, 0x1d, 0x25], false, &sequence(&purposes)));
    }
    Ok(out)
}

/// A key as PKCS #8, the one form that is read here. The tools of the field write RSA keys as
/// PKCS #1; the same numbers stand in both.
pub(super) fn pkcs8(key: String) -> String {
    match parse_x509_pem(key.as_bytes()) {
        Ok((_, block)) if block.label == "RSA PRIVATE KEY" => {
            let id = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
            let algorithm = sequence(&[tlv(OID, &id), tlv(NULL, &[])]);
            let key = tlv(OCTET_STRING, &block.contents);
            let whole = sequence(&[tlv(INTEGER, &[0]), algorithm, key]);
            pem_block("PRIVATE KEY", &whole)
        }
        _ => key,
    }
}

/// The signature algorithm of a key, encoded.
fn algorithm(key: &KeyPair) -> Result<Vec<u8>, PkiError> {
    let id: &[u8] = if key.algorithm() == &PKCS_ECDSA_P256_SHA256 {
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]
    } else if key.algorithm() == &PKCS_ECDSA_P384_SHA384 {
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]
    } else if key.algorithm() == &PKCS_ED25519 {
        &[0x2b, 0x65, 0x70]
    } else if key.algorithm() == &PKCS_RSA_SHA256 {
        // Its parameters are there, and are NULL (RFC 4055, 5).
        let id = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
        return Ok(sequence(&[tlv(OID, &id), tlv(NULL, &[])]));
    } else {
        let why = "the authority's key is neither RSA, ECDSA (P-256, P-384) nor Ed25519";
        return Err(PkiError::Request(why.to_owned()));
    };
    Ok(sequence(&[tlv(OID, id)]))
}

fn wrong(error: impl std::fmt::Display) -> PkiError {
    PkiError::Request(error.to_string())
}

/// The alternative names of a request, as they stand in it.
fn alternative_names(request: &X509CertificationRequest<'_>) -> Result<Option<Vec<u8>>, PkiError> {
    for attribute in request.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else {
            continue;
        };
        for extension in &asked.extensions {
            if extension.oid != OID_X509_EXT_SUBJECT_ALT_NAME {
                continue;
            }
            if !matches!(
                extension.parsed_extension(),
                ParsedExtension::SubjectAlternativeName(_)
            ) {
                return Err(wrong("the alternative names can't be read"));
            }
            return Ok(Some(extension.value.to_vec()));
        }
    }
    Ok(None)
}

/// How long a certificate lives for which so many seconds were asked.
#[must_use]
pub fn life(asked: Option<i32>) -> SignedDuration {
    asked.map_or(LONGEST, |seconds| {
        SignedDuration::from_secs(seconds.into()).clamp(SHORTEST, LONGEST)
    })
}

impl Pki {
    /// Signs a request in PEM for the usages of the certificates API; answers PEM.
    ///
    /// # Errors
    /// The request can't be read, its signature is wrong, a usage is not known, or the authority
    /// has ended.
    pub fn sign_request(
        &self,
        pem: &[u8],
        asked: &[String],
        life: SignedDuration,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        let (_, block) = parse_x509_pem(pem).map_err(wrong)?;
        let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(wrong)?;
        request.verify_signature().map_err(wrong)?;
        let key = KeyPair::from_pem(&self.ca_key_pem)?;
        let authority: Pem = parse_x509_pem(self.ca_pem.as_bytes()).map_err(wrong)?.1;
        let authority = authority.parse_x509().map_err(wrong)?;
        let ends = authority.validity().not_after.timestamp();
        let ends = Timestamp::from_second(ends).map_err(wrong)?;
        if ends <= now {
            return Err(wrong(format!("the signer has expired: NotAfter={ends}")));
        }
        let start = now.checked_sub(BACKDATE).map_err(wrong)?;
        let end = if life < SHORT { now } else { start };
        let end = end.checked_add(life).map_err(wrong)?.min(ends);

        let info = &request.certification_request_info;
        let mut extensions = usages(asked)?;
        // Not an authority.
        extensions.push(extension(&[0x55, 0x1d, 0x13], true, &sequence(&[])));
        let key_id = authority
            .extensions()
            .iter()
            .find_map(|it| match it.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
        if let Some(id) = key_id {
            let value = sequence(&[tlv(0x80, &id)]);
            extensions.push(extension(&[0x55, 0x1d, 0x23], false, &value));
        }
        if let Some(names) = alternative_names(&request)? {
            let nameless = info.subject.iter().next().is_none();
            extensions.push(extension(&[0x55, 0x1d, 0x11], nameless, &names));
        }
        let mut serial: [u8; 16] = rand::random();
        // Positive and of full length.
        serial[0] = (serial[0] & 0x3f) | 0x40;
        let algorithm = algorithm(&key)?;
        let body = sequence(&[
            tlv(0xa0, &tlv(INTEGER, &[2])),
            tlv(INTEGER, &serial),
            algorithm.clone(),
            authority.subject().as_raw().to_vec(),
            sequence(&[time(start), time(end)]),
            info.subject.as_raw().to_vec(),
            info.subject_pki.raw.to_vec(),
            tlv(0xa3, &sequence(&extensions)),
        ]);
        let mut signature = vec![0];
        signature.extend(key.sign(&body)?);
        let der = sequence(&[body, algorithm, tlv(BIT_STRING, &signature)]);
        Ok(pem_block("CERTIFICATE", &der))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType};
    use x509_parser::prelude::X509Certificate;

    use super::*;

    fn pki(now: Timestamp) -> (tempfile::TempDir, Pki) {
        let home = tempfile::tempdir().expect("a directory");
        let pki = Pki::open(home.path(), now).expect("an authority");
        (home, pki)
    }

    fn asked() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        params
            .distinguished_name
            .push(DnType::CommonName, "somebody");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "group");
        let key = KeyPair::generate().expect("a key");
        let request = params.serialize_request(&key).expect("a request");
        request.pem().expect("PEM").into_bytes()
    }

    fn client() -> Vec<String> {
        ["digital signature", "key encipherment", "client auth"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn what_is_signed_is_what_was_asked_for_and_holds() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let (_home, pki) = pki(now);
        let pem = pki
            .sign_request(&asked(), &client(), life(None), now)
            .expect("signed");
        let (_, block) = parse_x509_pem(pem.as_bytes()).expect("PEM");
        let (_, made) = X509Certificate::from_der(&block.contents).expect("a certificate");
        let (_, authority) = parse_x509_pem(pki.ca().as_bytes()).expect("PEM");
        let authority = authority.parse_x509().expect("a certificate");
        made.verify_signature(Some(authority.public_key()))
            .expect("it is the authority's");
        assert_eq!(made.issuer(), authority.subject());
        assert!(
            made.subject().to_string().contains("CN=somebody"),
            "{}",
            made.subject()
        );
        let names = made
            .subject_alternative_name()
            .expect("read")
            .expect("there");
        assert_eq!(names.value.general_names.len(), 1);
        let usage = made.key_usage().expect("read").expect("there").value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let purposes = made
            .extended_key_usage()
            .expect("read")
            .expect("there")
            .value;
        assert!(purposes.client_auth && !purposes.server_auth);
        assert!(!made.is_ca());
        let start = made.validity().not_before.timestamp();
        assert_eq!(start, now.as_second() - 300);
        assert_eq!(
            made.validity().not_after.timestamp() - start,
            365 * 24 * 3600
        );
    }

    /// An authority as the tools of the field make it: an RSA key, written as PKCS #1.
    #[test]
    fn an_authority_with_an_rsa_key_signs() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let written = include_str!("testdata/rsa-authority.key");
        let key = KeyPair::from_pem(&pkcs8(written.to_owned())).expect("a key");
        assert!(key.algorithm() == &PKCS_RSA_SHA256);
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "an old authority");
        let authority = params.self_signed(&key).expect("a certificate").pem();
        let home = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            std::fs::write(home.path().join(name), text).expect("written");
        };
        write("ca.crt", &authority);
        write("ca.key", written);
        let pki = Pki::open(home.path(), now).expect("an authority");
        let pem = pki
            .sign_request(&asked(), &client(), life(None), now)
            .expect("signed");
        let (_, block) = parse_x509_pem(pem.as_bytes()).expect("PEM");
        let (_, made) = X509Certificate::from_der(&block.contents).expect("a certificate");
        let (_, authority) = parse_x509_pem(authority.as_bytes()).expect("PEM");
        let authority = authority.parse_x509().expect("a certificate");
        made.verify_signature(Some(authority.public_key()))
            .expect("it is the authority's");
        assert_eq!(
            made.signature_algorithm.algorithm.to_id_string(),
            "1.2.840.113549.1.1.11"
        );
    }

    #[test]
    fn lives_are_kept_within_bounds() {
        for (asked, seconds) in [
            (None, 365 * 86400),
            (Some(1), 600),
            (Some(3600), 3600),
            (Some(i32::MAX), 365 * 86400),
        ] {
            assert_eq!(life(asked).as_secs(), seconds, "{asked:?}");
        }
        let now: Timestamp = "2035-12-01T00:00:00Z".parse().expect("a time");
        let (_home, pki) = pki("2026-01-01T00:00:00Z".parse().expect("a time"));
        let pem = pki
            .sign_request(&asked(), &client(), life(None), now)
            .expect("signed");
        let (_, block) = parse_x509_pem(pem.as_bytes()).expect("PEM");
        let ends = block
            .parse_x509()
            .expect("a certificate")
            .validity()
            .not_after
            .timestamp();
        let (_, authority) = parse_x509_pem(pki.ca().as_bytes()).expect("PEM");
        let last = authority
            .parse_x509()
            .expect("a certificate")
            .validity()
            .not_after
            .timestamp();
        assert_eq!(ends, last, "none outlives the authority");
    }

    #[test]
    fn what_can_not_be_signed_is_named() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let (_home, pki) = pki(now);
        let odd = ["client auth".to_owned(), "juggling".to_owned()];
        let refused = pki
            .sign_request(&asked(), &odd, life(None), now)
            .expect_err("no");
        assert!(
            refused
                .to_string()
                .contains("unrecognized usage values: [\"juggling\"]")
        );
        let mut broken = asked();
        let middle = broken.len() / 2;
        broken[middle] = if broken[middle] == b'A' { b'B' } else { b'A' };
        pki.sign_request(&broken, &client(), life(None), now)
            .expect_err("a wrong signature");
    }
}
