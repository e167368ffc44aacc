//! The keys of an issuer: found by its discovery document, read as a JSON Web Key Set (RFC 7517),
//! and read anew when a token names one that is not known.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use p521::ecdsa::signature::Verifier as _;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;
use tokio::time::Instant;

use crate::outbound::{Peer, Url};

const LIMIT: Duration = Duration::from_secs(10);
/// Keys are not read more often than this, however many tokens name unknown ones.
const PAUSE: Duration = Duration::from_secs(1);

/// The algorithms that are understood.
pub(crate) const ALGORITHMS: [&str; 10] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
];

/// A public key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    id: String,
    form: Form,
}

#[derive(Debug, Clone, PartialEq)]
enum Form {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The curve, and an uncompressed point.
    Ec {
        curve: String,
        point: Vec<u8>,
    },
    Ed(Vec<u8>),
}

pub(crate) fn read(key: &Value) -> Option<Key> {
    let text = |name: &str| key[name].as_str().unwrap_or_default();
    if !matches!(text("use"), "" | "sig") {
        return None;
    }
    let bytes = |name: &str| {
        URL_SAFE_NO_PAD
            .decode(text(name).trim_end_matches('='))
            .ok()
    };
    // Numbers are written without leading zeros.
    let number = |name: &str| {
        let bytes = bytes(name)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(bytes[zeros..].to_vec())
    };
    let form = match (text("kty"), text("crv")) {
        ("RSA", _) => Form::Rsa {
            n: number("n")?,
            e: number("e")?,
        },
        ("EC", curve @ ("P-256" | "P-384" | "P-521")) => {
            let mut point = vec![4];
            point.extend(bytes("x")?);
            point.extend(bytes("y")?);
            Form::Ec {
                curve: curve.to_owned(),
                point,
            }
        }
        ("OKP", "Ed25519") => Form::Ed(bytes("x")?),
        _ => return None,
    };
    Some(Key {
        id: text("kid").to_owned(),
        form,
    })
}

impl Key {
    pub(crate) fn has_signed(&self, algorithm: &str, message: &[u8], given: &[u8]) -> bool {
        let rsa = |parameters: &RsaParameters| match &self.form {
            Form::Rsa { n, e } => RsaPublicKeyComponents { n, e }
                .verify(parameters, message, given)
                .is_ok(),
            _ => false,
        };
        let other = |how: &'static dyn signature::VerificationAlgorithm, bytes: &[u8]| {
            UnparsedPublicKey::new(how, bytes)
                .verify(message, given)
                .is_ok()
        };
        match (algorithm, &self.form) {
            ("RS256", _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            ("RS384", _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            ("RS512", _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            ("PS256", _) => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            ("PS384", _) => rsa(&signature::RSA_PSS_2048_8192_SHA384),
            ("PS512", _) => rsa(&signature::RSA_PSS_2048_8192_SHA512),
            ("ES256", Form::Ec { curve, point }) if curve == "P-256" => {
                other(&signature::ECDSA_P256_SHA256_FIXED, point)
            }
            ("ES384", Form::Ec { curve, point }) if curve == "P-384" => {
                other(&signature::ECDSA_P384_SHA384_FIXED, point)
            }
            ("ES512", Form::Ec { curve, point }) if curve == "P-521" => {
                let known = p521::ecdsa::VerifyingKey::from_sec1_bytes(point);
                let given = p521::ecdsa::Signature::from_slice(given);
                matches!((known, given), (Ok(known), Ok(given))
                    if known.verify(message, &given).is_ok())
            }
            ("EdDSA", Form::Ed(bytes)) => other(&signature::ED25519, bytes),
            _ => false,
        }
    }
}

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct Keys {
    issuer: String,
    discovery: Url,
    peer: Peer,
    known: parking_lot::Mutex<Arc<Vec<Key>>>,
    /// Where they are read, and when they were.
    reading: tokio::sync::Mutex<(Option<Url>, Option<Instant>)>,
}

impl Keys {
    pub(super) fn new(issuer: &str, discovery: Url, peer: Peer) -> Self {
        Self {
            issuer: issuer.to_owned(),
            discovery,
            peer,
            known: parking_lot::Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    fn finds(&self, id: &str, algorithm: &str, message: &[u8], given: &[u8]) -> bool {
        let known = Arc::clone(&self.known.lock());
        known
            .iter()
            .filter(|key| id.is_empty() || key.id == id)
            .any(|key| key.has_signed(algorithm, message, given))
    }

    /// Has one of the issuer's keys signed this?
    ///
    /// # Errors
    /// None that is known has, and the keys can't be read anew.
    pub(super) async fn have_signed(
        &self,
        id: &str,
        algorithm: &str,
        message: &[u8],
        given: &[u8],
    ) -> Result<bool, String> {
        if self.finds(id, algorithm, message, given) {
            return Ok(true);
        }
        let mut reading = self.reading.lock().await;
        // Somebody may have read them while this one waited.
        if self.finds(id, algorithm, message, given) {
            return Ok(true);
        }
        if reading.1.is_some_and(|last| last.elapsed() < PAUSE) {
            return Ok(false);
        }
        if reading.0.is_none() {
            reading.0 = Some(self.discover().await?);
        }
        if let Some(place) = &reading.0 {
            let set = self.get(place).await?;
            let keys: Vec<Key> = set["keys"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(read)
                .collect();
            *self.known.lock() = Arc::new(keys);
        }
        reading.1 = Some(Instant::now());
        drop(reading);
        Ok(self.finds(id, algorithm, message, given))
    }

    async fn discover(&self) -> Result<Url, String> {
        let document = self.get(&self.discovery).await?;
        let said = document["issuer"].as_str().unwrap_or_default();
        if said != self.issuer {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got \
                 {said:?}",
                self.issuer
            ));
        }
        Url::read(document["jwks_uri"].as_str().unwrap_or_default())
    }

    async fn get(&self, url: &Url) -> Result<Value, String> {
        let (code, body) = self.peer.ask(Method::GET, url, None, LIMIT).await?;
        if code != StatusCode::OK {
            let text = String::from_utf8_lossy(&body);
            return Err(format!("{code}: {text}"));
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The public half of a key that was thrown away, and what it signed.
    const MODULUS: &[&str] = &[
        "wXUY731hJ2ARQH6QooJ9c0QxoyL9nlZx1caKhU4cXevIooHaAADS6EKoU7THwOg47w36nXywrxURsrc8",
        "j8aGGFQNFcaRIHYgVN9julU9ZTJw4ouJB6BXmB16DOwDcZs8BOiWZxf_iZMXrZcY-Ow0vyPc3TWu4sp8",
        "3ssW7PYtz5cjZFl3XI4lwIu7lKpwV7OW967zDn_ZzgBOBWl_tdyIzqMR4F_EGUmXFYDjnpzRcgwk8dC8",
        "ZqLTrt3mMJBZvCGmtGhEISjWLqV99FZR6iCb_97GW5MRZ7EhfKpcSrZZ0OQK2MSe8VojXc79aHt5KdTJ",
        "79guTzRojrVXtAnQXW0Dcw",
    ];
    const PKCS1: &[&str] = &[
        "t6ALUODacDzs5MpihYDmxt0dwj4aW_pvqGxcCRppFbBWUqkgc65u66W3saAlKGBiflK_mCHqOPRk5CKU",
        "30ofYIWOVwYGMt4L2gEC6fOAPDhV8HJLPtp5raVfGUHzP99M2d94KcnG9_UNLwJPlYQKgGekVHkbZItz",
        "5WfSaBBJ7NmBcrIWzJOMUojxJTB7Ym2MCfCg1Spb_L0JlEfyRKe3OhBpdt9zg2e6UqjMDReMJU21bxng",
        "8hDjI3v3k8MuWDEH0KdK7AVHBIWHOd-EwKYk7YF1Edv7I6mPXs9cWd6tcgmdlf-v9ONz0bXhsM1rXUrR",
        "oNcf1Sxw1Hpu3jGavOzGDA",
    ];
    const PSS: &[&str] = &[
        "IYJrkHSkt8SJuz2PqM69dvoLcI9aAM3005Ny6BHmQSKBt6u7XT_NE7iwvdDq9BD_MBWU1wnP38mac6x8",
        "fll8yiarBmYGV8TfiX2uk5zNYol5A5P5uOzPNPNBVJT0bPtdehVHpeUQnATMuM0t2XTgCEZX1hjveaJ5",
        "lziANan8ab0Kqm6ShY40yxN4TVFPq7IB6bJdr9cdZphh22SWvwHXwIS69b-VyPIZc0AQmZBcTz6XAWDl",
        "OXrZxvdfN65ZZ3JJ3ENcJdu18uziInAk3kk37lJuHQX1citjrvdwjlBcg2GFMqPFUI637zjpsi1Q_Gec",
        "NDZ5kTUw66bU5KNhgtYM-w",
    ];

    /// Another one, on the curve that `ring` lacks.
    const X: &str =
        "ANoGYrdyiTBA-uQRRK_agzIqvDfnQWc5q4OolLBGmd63EkxB6OGtncDu7bTKoHoYOCY-FosEbopkWJ0JbUaTzbK5";
    const Y: &str =
        "ANvWc2gF49LE2hx0fC_vUH4ZkNPrEEKE76s4x_x4W3-CwIklbi-ibl3FL9NNt6XKEGdmY9VdOHF-KSWCZcIuQBoi";
    const ES512: &[&str] = &[
        "AE7TTGyDpk9Ah4FypLMjQvwKz0a6aiIb-PjEJWR2Lg1J890pUZ_OSn4XmZKkagZ3VL1_hHUsJA-fvuch0g2_7dhr",
        "ATSjOu5LBd9pHcpluX5gSGLupog6CFdBpHaBON8GtaT_swNbzXNWKZXbmIrAAdEVEKI_ewjEzc5feFpnvJ1-veg8",
    ];

    #[test]
    fn keys_of_the_largest_curve_verify() {
        let key = json!({"kty": "EC", "crv": "P-521", "kid": "k", "x": X, "y": Y});
        let key = read(&key).unwrap();
        let mut given = URL_SAFE_NO_PAD.decode(ES512.concat()).unwrap();
        assert!(key.has_signed("ES512", b"the message", &given));
        assert!(!key.has_signed("ES512", b"another", &given));
        assert!(!key.has_signed("ES384", b"the message", &given));
        assert!(!key.has_signed("ES512", b"the message", &given[1..]));
        given[70] ^= 1;
        assert!(!key.has_signed("ES512", b"the message", &given));
    }

    #[test]
    fn keys_of_rsa_verify_both_forms_of_signatures() {
        let key = json!({"kty": "RSA", "kid": "k", "e": "AQAB", "n": MODULUS.concat()});
        let key = read(&key).unwrap();
        let given = |parts: &[&str]| URL_SAFE_NO_PAD.decode(parts.concat()).unwrap();
        let (pkcs1, pss) = (given(PKCS1), given(PSS));
        assert!(key.has_signed("RS256", b"evenkeel", &pkcs1));
        assert!(key.has_signed("PS256", b"evenkeel", &pss));
        assert!(!key.has_signed("PS256", b"evenkeel", &pkcs1));
        assert!(!key.has_signed("RS256", b"other", &pkcs1));
        assert!(!key.has_signed("ES256", b"evenkeel", &pkcs1));
        assert_eq!(read(&json!({"kty": "oct", "k": "AA"})), None);
        assert_eq!(
            read(&json!({"kty": "RSA", "use": "enc", "n": "AA", "e": "AQAB"})),
            None
        );
    }
}
