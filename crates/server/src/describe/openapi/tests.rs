use super::*;

fn of(group: &'static str) -> Subject {
    Subject::Kinds(GroupVersion {
        group: group.into(),
        version: "v1".into(),
    })
}

fn built(document: &Document, asked: &str, known: &[&str]) -> Built {
    let known: Vec<String> = known.iter().map(|tag| (*tag).to_owned()).collect();
    build(
        &Rows::builtin(),
        &Hashes::default(),
        Others::default(),
        document,
        asked,
        &known,
    )
}

#[test]
fn the_index_names_every_document_by_its_hash() {
    let index = built(&Document::Index, "", &[]);
    let value: Value = serde_json::from_slice(&index.body).expect("JSON");
    let paths = value["paths"].as_object().expect("paths");
    for path in [
        "api/v1",
        "apis/apps/v1",
        "apis/rbac.authorization.k8s.io/v1",
        "api",
        "apis",
        "apis/apps",
        "version",
        "openid/v1/jwks",
        ".well-known/openid-configuration",
    ] {
        let url = paths[path]["serverRelativeURL"].as_str().expect("a URL");
        assert!(
            url.starts_with(&format!("/openapi/v3/{path}?hash=")),
            "{url}"
        );
    }
    let url = paths["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .expect("a URL");
    let document = built(&Document::V3(of("apps")), "", &[]);
    assert!(url.ends_with(&document.tag));
    assert_eq!(hash(|out| out.write_all(&document.body)), document.tag);
}

#[test]
fn a_document_named_by_its_hash_never_expires() {
    let apps = Document::V3(of("apps"));
    let tag = built(&apps, "", &[]).tag;
    let named = built(&apps, &tag, &[]);
    let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let found = answer(named, "application/json", now);
    assert_eq!(found.status(), 200);
    assert_eq!(found.headers()[CACHE_CONTROL], "public, immutable");
    assert_eq!(found.headers()[EXPIRES], "Fri, 01 Jan 2027 00:00:00 GMT");
    assert_eq!(found.headers()[ETAG], format!("\"{tag}\""));

    let stale = answer(built(&apps, "OLD", &[]), "application/json", now);
    assert_eq!(stale.status(), 301);
    assert_eq!(
        stale.headers()[LOCATION],
        format!("/openapi/v3/apis/apps/v1?hash={tag}")
    );
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    for document in [
        Document::Index,
        Document::V3(of("apps")),
        Document::V2(Form::Protobuf),
    ] {
        let first = built(&document, "", &[]);
        assert_eq!(first.code, StatusCode::OK);
        assert!(!first.body.is_empty());
        let again = built(&document, "", &["other", &first.tag]);
        assert_eq!(again.code, StatusCode::NOT_MODIFIED);
        assert!(again.body.is_empty());
    }
}
