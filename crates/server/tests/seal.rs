//! Encryption at rest: every provider, rotation, and what is refused.

use std::path::Path;

use bytes::Bytes;
use evenkeel_server::seal::{Seal, SealError};

fn configuration(providers: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets, '*.apps']\n  providers:\n{providers}"
    )
}

/// 32 bytes in base64.
const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn keyed(provider: &str, keys: &[(&str, &str)]) -> String {
    let keys: String = keys
        .iter()
        .map(|(name, secret)| format!("      - {{name: {name}, secret: {secret}}}\n"))
        .collect();
    format!("  - {provider}:\n      keys:\n{keys}")
}

fn configured(text: &str) -> Seal {
    Seal::configured(text, Path::new("/nonexistent/key")).expect("a configuration")
}

const KEY: &[u8] = b"/registry/secrets/a/b";

#[test]
fn a_sealed_value_opens_only_for_its_object() {
    let seal = Seal::from_key(&[7; 32]).expect("a key");
    let plain = Bytes::from_static(b"plain");
    let sealed = seal.seal("secrets", KEY, &plain).expect("sealed");
    assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:key1:"));
    assert!(!sealed.windows(5).any(|window| window == b"plain"));
    assert_eq!(
        seal.unseal("secrets", KEY, &sealed).expect("opened"),
        "plain"
    );
    assert!(
        seal.unseal("secrets", b"/registry/secrets/a/c", &sealed)
            .is_err()
    );
    let untouched = Bytes::from_static(b"{}");
    let other = seal.unseal("secrets", b"k", &untouched);
    assert_eq!(other.expect("as it is"), untouched);
    let pods = seal.seal("pods", b"k", &untouched).expect("not sealed");
    assert_eq!(pods, untouched);
}

#[test]
fn every_provider_opens_what_it_sealed() {
    let plain = Bytes::from_static(b"{\"kind\":\"Secret\"}");
    for provider in ["aesgcm", "aescbc", "secretbox"] {
        let seal = configured(&configuration(&keyed(provider, &[("k", ONE)])));
        let sealed = seal.seal("secrets", KEY, &plain).expect("sealed");
        let prefix = format!("k8s:enc:{provider}:v1:k:");
        assert!(sealed.starts_with(prefix.as_bytes()), "{provider}");
        assert_eq!(seal.unseal("secrets", KEY, &sealed).expect(provider), plain);
        let mut damaged = sealed.to_vec();
        if let Some(last) = damaged.last_mut() {
            *last ^= 1;
        }
        let opened = seal.unseal("secrets", KEY, &damaged.into());
        assert!(opened.is_err() || provider == "aescbc", "{provider}");
        // Without `identity`, what is not sealed is not accepted.
        assert!(matches!(
            seal.unseal("secrets", KEY, &plain),
            Err(SealError::Plain)
        ));
    }
}

/// Test case 10 of "The Galois/Counter Mode of Operation" by McGrew and Viega: 192 bits.
#[test]
fn aesgcm_knows_keys_of_24_bytes() {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
            .collect()
    };
    let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c");
    let nonce = hex("cafebabefacedbaddecaf888");
    let place = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let plain = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6\
         b525b16aedf5aa0de657ba637b39",
    );
    let sealed = hex(
        "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84a\
         3f4718e2448b2fe324d9ccda27102519498e80f1478f37ba55bd6d27618c",
    );
    let secret = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &key);
    let seal = configured(&configuration(&keyed("aesgcm", &[("k", &secret)])));
    let stored = [b"k8s:enc:aesgcm:v1:k:", &nonce[..], &sealed].concat();
    let opened = seal.unseal("secrets", &place, &stored.into());
    assert_eq!(opened.expect("the published value"), plain);
    let again = seal.seal("secrets", KEY, &plain.clone().into());
    let opened = seal.unseal("secrets", KEY, &again.expect("sealed"));
    assert_eq!(opened.expect("opened"), plain);
}

#[test]
fn keys_rotate() {
    let plain = Bytes::from_static(b"plain");
    let before = configured(&configuration(&keyed("aescbc", &[("old", ONE)])));
    let sealed = before
        .seal("deployments.apps", KEY, &plain)
        .expect("sealed");
    let both = keyed("secretbox", &[("new", TWO)]) + &keyed("aescbc", &[("old", ONE)]);
    let during = configured(&configuration(&both));
    let opened = during.unseal("deployments.apps", KEY, &sealed);
    assert_eq!(opened.expect("the old key opens"), plain);
    assert!(during.is_stale("deployments.apps", &sealed));
    let rewritten = during
        .seal("deployments.apps", KEY, &plain)
        .expect("sealed");
    assert!(!during.is_stale("deployments.apps", &rewritten));
    let after = configured(&configuration(&keyed("secretbox", &[("new", TWO)])));
    let opened = after.unseal("deployments.apps", KEY, &rewritten);
    assert_eq!(opened.expect("the new key opens"), plain);
    let lost = after.unseal("deployments.apps", KEY, &sealed);
    let Err(SealError::Unknown(said)) = lost else {
        panic!("the old key is gone");
    };
    assert_eq!(said, "k8s:enc:aescbc:v1:old");
}

#[test]
fn the_key_of_the_first_start_goes_on_opening() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("encryption.key");
    let plain = Bytes::from_static(b"plain");
    let sealed = Seal::open(&path)
        .expect("a key")
        .seal("secrets", KEY, &plain)
        .expect("sealed");
    let text = configuration(&keyed("aesgcm", &[("key1", TWO)]));
    let seal = Seal::configured(&text, &path).expect("a configuration");
    assert_eq!(seal.unseal("secrets", KEY, &sealed).expect("opened"), plain);
}

/// The vector of NaCl's own tests (`tests/secretbox.c`).
#[test]
fn secretbox_is_that_of_nacl() {
    let hex = |text: &str| -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|two| {
                u8::from_str_radix(std::str::from_utf8(two).expect("text"), 16).expect("hex")
            })
            .collect()
    };
    let key = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
    let nonce = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37");
    let plain = hex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c\
         61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f\
         21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705",
    );
    let sealed = hex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1\
         186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab9321645\
         48e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b\
         1f654cb45a74e355a5",
    );
    let secret = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &key);
    let seal = configured(&configuration(&keyed("secretbox", &[("k", &secret)])));
    let stored = [b"k8s:enc:secretbox:v1:k:", &nonce[..], &sealed].concat();
    let opened = seal.unseal("secrets", KEY, &stored.into());
    assert_eq!(opened.expect("NaCl's own value"), plain);
}

#[test]
fn what_is_wrong_is_named_and_secrets_are_not() {
    let refused = |text: &str| match Seal::configured(text, Path::new("/nonexistent/key")) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    };
    for (kms, at) in [
        (
            "{apiVersion: v1, name: k, endpoint: unix:///k}",
            "apiVersion: KMSv1 is deprecated",
        ),
        (
            "{name: k, endpoint: unix:///k}",
            "apiVersion: KMSv1 is deprecated",
        ),
        (
            "{apiVersion: v3, name: k, endpoint: unix:///k}",
            "apiVersion: \"v3\"",
        ),
        (
            "{apiVersion: v2, name: 'a:b', endpoint: unix:///k}",
            "name: ",
        ),
        (
            "{apiVersion: v2, name: k, endpoint: 'tcp://k:1'}",
            "endpoint: ",
        ),
        (
            "{apiVersion: v2, name: k, endpoint: unix:///k, timeout: 0s}",
            "timeout: ",
        ),
        (
            "{apiVersion: v2, name: k, endpoint: unix:///k, cachesize: 5}",
            "cachesize: ",
        ),
    ] {
        let said = refused(&configuration(&format!("  - kms: {kms}\n")));
        let at = format!("resources[0].providers[0].kms.{at}");
        assert!(said.starts_with(&at), "{said}");
    }
    let service = "  - kms: {apiVersion: v2, name: k, endpoint: unix:///k, timeout: 1m2.5s}\n";
    configured(&configuration(service));
    let both = refused(&configuration(&(service.to_owned() + service)));
    assert!(both.contains("names must be unique"), "{both}");
    let short = refused(&configuration(&keyed("secretbox", &[("k", "c2hvcnQ=")])));
    assert!(
        short.contains("32 bytes") && !short.contains("c2hvcnQ"),
        "{short}"
    );
    let twice = refused(&configuration(&keyed("aescbc", &[("k", ONE), ("k", TWO)])));
    assert!(twice.contains("twice"), "{twice}");
    let misspelt = refused(&configuration(&keyed("aesgmc", &[("k", ONE)])));
    assert!(
        misspelt.contains("aesgmc") && !misspelt.contains(ONE),
        "{misspelt}"
    );
}
