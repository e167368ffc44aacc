use serde_json::json;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    text.split_ascii_whitespace()
        .flat_map(|run| run.as_bytes().chunks(2))
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("digits");
            u8::from_str_radix(pair, 16).expect("digits")
        })
        .collect()
}

#[test]
fn objects_come_back_as_they_were() {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ä", "labels": {}},
        "numbers": [0, 23, 24, 255, 256, 65_535, 65_536, 4_294_967_296_u64, -1, -25, i64::MIN,
            1.5, 0.1, -0.0],
        "rest": [true, false, null, "", "x".repeat(300)],
    });
    let bytes = encode(&object);
    assert_eq!(bytes[..3], [0xd9, 0xd9, 0xf7]);
    assert_eq!(decode(&bytes), Ok(object));
}

/// Examples of RFC 8949, appendix A.
#[test]
fn the_examples_of_the_standard_are_read() {
    for (bytes, value) in [
        ("1bffffffffffffffff", None),
        ("3863", Some(json!(-100))),
        ("f93e00", Some(json!(1.5))),
        ("f90001", Some(json!(5.960_464_477_539_063e-8))),
        ("fa47c35000", Some(json!(100_000.0))),
        ("f97c00", None),
        ("f97e00", None),
        ("f7", None),
        ("c249010000000000000000", None),
        (
            "c074323031332d30332d32315432303a30343a30305a",
            Some(json!("2013-03-21T20:04:00Z")),
        ),
        ("c11a514b67b0", Some(json!("2013-03-21T20:04:00Z"))),
        ("d64401020304", Some(json!("AQIDBA=="))),
        ("4449455446", Some(json!("IETF"))),
        ("6449455446", Some(json!("IETF"))),
        ("42fffe", None),
        ("9f018202039f0405ffff", Some(json!([1, [2, 3], [4, 5]]))),
        ("bf61610161629f0203ffff", Some(json!({"a": 1, "b": [2, 3]}))),
        ("7f657374726561646d696e67ff", Some(json!("streaming"))),
        (
            "5f42010243030405ff",
            Some(json!("\u{1}\u{2}\u{3}\u{4}\u{5}")),
        ),
        ("a201020304", None),
        ("a2616101616102", None),
        ("a1", None),
        ("ff", None),
        ("1c", None),
        ("0000", None),
        ("", None),
    ] {
        assert_eq!(decode(&hex(bytes)).ok(), value, "{bytes}");
    }
    assert_eq!(
        decode(&hex("a2616101616102")),
        Err(CborError::Duplicate("a".to_owned()))
    );
}

#[test]
fn lengths_that_lie_cost_nothing() {
    assert_eq!(
        decode(&hex("9bffffffffffffffff")),
        Err(CborError::Truncated)
    );
    assert_eq!(
        decode(&hex("bbffffffffffffffff")),
        Err(CborError::Truncated)
    );
    assert_eq!(
        decode(&hex("5bffffffffffffffff")),
        Err(CborError::Truncated)
    );
    assert_eq!(decode(&vec![0x81; 10_000]), Err(CborError::Depth));
    assert_eq!(decode(&vec![0xc6; 10_000]), Err(CborError::Depth));
}

#[test]
fn what_is_as_deep_as_may_be_is_read_back_though_it_describes_itself() {
    let nested = |levels| (0..levels).fold(Value::Null, |inner, _| json!([inner]));
    let deepest = nested(127);
    let mut plain = vec![0x81; 127];
    plain.push(0xf6);
    assert_eq!(decode(&plain), Ok(deepest.clone()));
    assert_eq!(decode(&encode(&deepest)), Ok(deepest));
    assert_eq!(decode(&encode(&nested(128))), Err(CborError::Depth));
}

#[test]
fn an_event_describes_itself_and_its_object() {
    let frame = watch_frame("ADDED", &json!({"kind": "Pod"}));
    assert_eq!(
        decode(&frame),
        Ok(json!({"type": "ADDED", "object": {"kind": "Pod"}}))
    );
}
