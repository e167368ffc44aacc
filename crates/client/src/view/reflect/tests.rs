//! Lines of a watch, well-formed and not.

use k8s_openapi::api::core::v1::ConfigMap;
use parking_lot::Mutex;

use super::*;

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Sink<ConfigMap> for Seen {
    fn replace(&self, items: Vec<ConfigMap>, revision: u64) {
        self.0.lock().push(format!("{} at {revision}", items.len()));
    }

    fn event(&self, event: Event<ConfigMap>, revision: u64) {
        let (word, map) = match event {
            Event::Put(map) => ("put", map),
            Event::Gone(map) => ("gone", map),
        };
        let name = map.metadata.name.unwrap_or_default();
        self.0.lock().push(format!("{word} {name} {revision}"));
    }

    fn bookmark(&self, revision: u64) {
        self.0.lock().push(format!("mark {revision}"));
    }
}

fn line(kind: &str, revision: &str) -> String {
    format!(
        r#"{{"type":"{kind}","object":{{"kind":"ConfigMap","metadata":{{"name":"m","resourceVersion":"{revision}"}}}}}}"#
    )
}

#[test]
fn each_type_of_event_is_handed_on_with_its_revision() {
    let seen = Arc::new(Seen::default());
    let mut texts = texts::<ConfigMap, _>(Arc::clone(&seen));
    let mut take = |line: &str| take_in(line, texts.as_mut()).unwrap();
    assert_eq!(take(&line("ADDED", "3")), Some(3));
    assert_eq!(take(&line("MODIFIED", "4")), Some(4));
    assert_eq!(take(&line("DELETED", "5")), Some(5));
    assert_eq!(take(&line("BOOKMARK", "9")), Some(9));
    assert_eq!(take(&line("RENAMED", "10")), None);
    assert_eq!(*seen.0.lock(), ["put m 3", "put m 4", "gone m 5", "mark 9"]);
}

#[test]
fn an_event_may_be_written_in_any_way() {
    let seen = Arc::new(Seen::default());
    let mut texts = texts::<ConfigMap, _>(Arc::clone(&seen));
    let map = r#"{"metadata":{"name":"}","resourceVersion":"3"}}"#;
    for line in [
        format!(r#"{{"type":"ADDED","object":{map}}}"#),
        format!("{{\"type\":\"ADDED\",\"object\":{map}}}\n"),
        format!(r#"{{ "object" : {map} , "type" : "ADDED" }}"#),
        format!(r#"{{"type":"ADDED","object":{map},"more":{{}}}}"#),
    ] {
        assert_eq!(take_in(&line, texts.as_mut()).unwrap(), Some(3), "{line}");
    }
    assert_eq!(*seen.0.lock(), ["put } 3"; 4]);
}

#[test]
fn what_went_wrong_is_told_as_an_event_or_in_place_of_one() {
    let mut texts = texts::<ConfigMap, _>(Arc::new(Seen::default()));
    let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old resource version","reason":"Expired","code":410}"#;
    let event = format!(r#"{{"type":"ERROR","object":{status}}}"#);
    for told in [event.as_str(), status] {
        let error = take_in(told, texts.as_mut()).unwrap_err();
        assert!(errors::is_gone(&error), "{error}");
        assert!(matches!(ended(error), Ended::Relist));
    }
}

#[test]
fn a_line_that_was_cut_off_is_told_from_one_that_is_wrong() {
    let mut texts = texts::<ConfigMap, _>(Arc::new(Seen::default()));
    let whole = line("ADDED", "3");
    for end in 1..whole.len() {
        match take_in(&whole[..end], texts.as_mut()) {
            Err(kube::Error::SerdeError(error)) => assert!(error.is_eof(), "{end}: {error}"),
            other => panic!("{end}: {other:?}"),
        }
    }
    let wrong = whole.replace(r#""m""#, "7");
    match take_in(&wrong, texts.as_mut()) {
        Err(kube::Error::SerdeError(error)) => assert!(!error.is_eof(), "{error}"),
        other => panic!("{other:?}"),
    }
}
