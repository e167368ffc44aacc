//! Objects as servers write them, read as the types that loops know.

use evenkeel_client::Decode as _;
use k8s_openapi::api::core::v1::Service;

#[test]
fn a_time_that_nobody_gave_keeps_nobody_from_an_object() {
    let condition = r#"{"type":"A","status":"True","lastTransitionTime":null,"message":"null"}"#;
    let text = format!(
        r#"{{"metadata":{{"name":"a","deletionTimestamp":null}},"spec":null,"status":{{"conditions":[{condition}]}}}}"#
    );
    let service = Service::decode(&text).expect("an object");
    assert_eq!(service.metadata.deletion_timestamp, None);
    let conditions = service.status.and_then(|status| status.conditions);
    let condition = conditions.and_then(|mut all| all.pop()).expect("one");
    assert_eq!(condition.type_, "A");
    assert_eq!(condition.message, "null");
    assert_eq!(
        condition.last_transition_time.0.to_string(),
        "0001-01-01T00:00:00Z"
    );
}

#[test]
fn what_is_wrong_otherwise_is_told() {
    let wrong = Service::decode(r#"{"metadata":{"name":1},"spec":null}"#);
    let told = wrong.expect_err("a number is no name").to_string();
    assert!(told.starts_with("invalid type: integer `1`"), "{told}");
    let cut = Service::decode(r#"{"metadata":{"name":"a""#);
    assert!(cut.is_err_and(|error| error.is_eof()));
}
