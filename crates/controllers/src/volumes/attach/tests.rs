use super::plan::*;

fn now() -> jiff::Timestamp {
    "2026-11-21T05:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> Option<jiff::Timestamp> {
    Some(now() - jiff::SignedDuration::from_secs(seconds))
}

fn volume() -> Volume {
    Volume {
        name: "pv".to_owned(),
        driver: "d.example".to_owned(),
        handle: "h".to_owned(),
        exclusive: true,
        attaches: true,
    }
}

fn place(node: &str, pods: &[(&str, &str)], attachment: Option<Attachment>) -> Place {
    Place {
        node: node.to_owned(),
        pods: pods
            .iter()
            .map(|(space, name)| ((*space).to_owned(), (*name).to_owned()))
            .collect(),
        attachment,
        exists: true,
        ready: true,
        ..Place::default()
    }
}

fn attached() -> Option<Attachment> {
    Some(Attachment {
        attached: true,
        created: ago(10),
        ..Attachment::default()
    })
}

fn actions(volume: &Volume, places: &[Place]) -> Vec<(String, Action)> {
    plan(volume, places, now()).actions
}

fn one(node: &str, action: Action) -> Vec<(String, Action)> {
    vec![(node.to_owned(), action)]
}

#[test]
fn a_volume_is_attached_where_a_pod_wants_it_and_then_shown() {
    let pod = [("a", "p")];
    assert_eq!(
        actions(&volume(), &[place("n", &pod, None)]),
        one("n", Action::Attach)
    );
    let mut waits = place("n", &pod, Some(Attachment::default()));
    waits.attachment = Some(Attachment {
        created: ago(10),
        ..Attachment::default()
    });
    assert_eq!(actions(&volume(), std::slice::from_ref(&waits)), []);
    assert!(plan(&volume(), &[waits], now()).again.is_some());
    let mut there = place("n", &pod, attached());
    assert_eq!(
        actions(&volume(), std::slice::from_ref(&there)),
        one("n", Action::Show)
    );
    there.shown = true;
    assert_eq!(actions(&volume(), &[there]), []);
    let unattached = Volume {
        attaches: false,
        ..volume()
    };
    assert_eq!(actions(&unattached, &[place("n", &pod, None)]), []);
}

#[test]
fn what_keeps_a_volume_away_is_told() {
    let told = |places: &[Place]| match actions(&volume(), places).pop() {
        Some((_, Action::Tell(told))) => told.into_iter().map(|(_, text)| text).collect(),
        other => vec![format!("{other:?}")],
    };
    let failed = Attachment {
        error: Some("no disk".to_owned()),
        ..Attachment::default()
    };
    assert_eq!(
        told(&[place("n", &[("a", "p")], Some(failed))]),
        ["AttachVolume.Attach failed for volume \"pv\" : no disk"]
    );
    let silent = Attachment {
        created: ago(120),
        ..Attachment::default()
    };
    assert_eq!(
        told(&[place("n", &[("a", "p")], Some(silent))]),
        [
            "AttachVolume.Attach failed for volume \"pv\" : timed out waiting for \
          external-attacher of d.example CSI driver to attach volume h"
        ]
    );
    let wants = place("n", &[("a", "p")], None);
    for (pods, wanted) in [
        (vec![], "exclusively attached to one node"),
        (vec![("a", "x"), ("a", "y")], "used by pod(s) x, y"),
        (
            vec![("a", "x"), ("b", "y")],
            "used by pod(s) x and 1 pod(s) in different namespaces",
        ),
        (vec![("b", "y")], "used by 1 pod(s) in different namespaces"),
    ] {
        let mut has = place("m", &pods, attached());
        has.shown = true;
        has.in_use = true;
        let said = told(&[wants.clone(), has.clone()]);
        assert!(
            said[0].starts_with("Waiting for detach for volume \"pv\" Volume is already")
                && said[0].contains(wanted),
            "{said:?}"
        );
        let shared = Volume {
            exclusive: false,
            ..volume()
        };
        assert!(actions(&shared, &[wants.clone(), has]).contains(&("n".into(), Action::Attach)));
    }
}

#[test]
fn a_volume_is_detached_when_its_node_has_let_it_go() {
    let mut has = place("n", &[], attached());
    has.shown = true;
    has.in_use = true;
    let kept = plan(&volume(), std::slice::from_ref(&has), now());
    assert_eq!(
        (kept.actions, kept.unwanted),
        (vec![], vec!["n".to_owned()])
    );
    assert!(kept.again.is_some());
    has.in_use = false;
    let safe = one("n", Action::Detach { forced: false });
    assert_eq!(actions(&volume(), std::slice::from_ref(&has)), safe);
    // Cut short after the status, or after the deletion was asked for.
    has.shown = false;
    assert_eq!(actions(&volume(), std::slice::from_ref(&has)), safe);
    has.attachment = attached().map(|it| Attachment { going: true, ..it });
    assert_eq!(actions(&volume(), std::slice::from_ref(&has)), []);
    has.shown = true;
    has.attachment = None;
    assert_eq!(actions(&volume(), &[has]), one("n", Action::Hide));
}

#[test]
fn a_node_that_does_not_answer_keeps_it_for_six_minutes_unless_it_is_out_of_service() {
    let mut has = place("n", &[], attached());
    (has.in_use, has.ready, has.unwanted_since) = (true, false, ago(350));
    assert_eq!(actions(&volume(), std::slice::from_ref(&has)), []);
    let forced = one("n", Action::Detach { forced: true });
    has.out_of_service = true;
    assert_eq!(actions(&volume(), std::slice::from_ref(&has)), forced);
    (has.out_of_service, has.unwanted_since) = (false, ago(360));
    assert_eq!(actions(&volume(), std::slice::from_ref(&has)), forced);
    has.ready = true;
    assert_eq!(
        actions(&volume(), std::slice::from_ref(&has)),
        [],
        "a node that is ready unmounts by itself"
    );
    // One that is gone may have it mounted all the same.
    (has.exists, has.in_use, has.unwanted_since) = (false, false, ago(10));
    assert_eq!(actions(&volume(), std::slice::from_ref(&has)), []);
    has.unwanted_since = ago(360);
    assert_eq!(actions(&volume(), &[has]), forced);
}

#[test]
fn what_moves_is_detached_before_it_is_attached() {
    let mut old = place("a", &[], attached());
    old.shown = true;
    let new = place("b", &[("x", "p")], None);
    let did = actions(&volume(), &[new, old]);
    assert_eq!(did[0], ("a".to_owned(), Action::Detach { forced: false }));
    assert!(matches!(&did[1].1, Action::Tell(_)), "{did:?}");
}
