//! What a transaction does.

use super::{Probe, declare_cases, delete, pairs, put, read, text};
use crate::error::StoreError;
use crate::model::{Compare, Op, OpResult, Range, Txn};

declare_cases![
    a_write_counts_versions_and_a_delete_resets_them,
    a_transaction_is_one_revision,
    nothing_changed_is_no_revision,
    every_comparison_holds_and_fails,
    the_failing_branch_is_carried_out,
    steps_see_the_steps_before_them,
    a_range_of_keys_is_deleted,
    results_carry_what_was_there,
    senseless_transactions_are_refused_whole,
    large_values_survive,
];

async fn a_write_counts_versions_and_a_delete_resets_them(p: Probe) {
    p.put("a", "1").await;
    p.put("a", "2").await;
    p.delete("a").await;
    assert_eq!(p.get("a").await, None);
    let again = p.put("a", "3").await;
    let kv = p.get("a").await.expect("the key came back");
    assert_eq!(
        (kv.create_revision, kv.mod_revision, kv.version),
        (again, again, 1)
    );
}

async fn a_transaction_is_one_revision(p: Probe) {
    let base = p.revision().await;
    let txn = Txn {
        success: vec![put("a", "1"), put("b", "1"), put("c", "1")],
        ..Txn::default()
    };
    let done = p.txn(txn).await;
    assert!(done.succeeded);
    assert_eq!((done.revision, done.results.len()), (base + 1, 3));
    let all = p.range(Range::prefix("")).await;
    assert!(all.kvs.iter().all(|kv| kv.mod_revision == base + 1));
    assert_eq!(all.revision, base + 1);
}

async fn nothing_changed_is_no_revision(p: Probe) {
    let base = p.put("a", "1").await;
    assert_eq!(p.delete("absent").await, base);
    let read_only = Txn {
        success: vec![Op::Range(Range::key("a"))],
        ..Txn::default()
    };
    assert_eq!(p.txn(read_only).await.revision, base);
    assert_eq!(p.txn(Txn::default()).await.revision, base);
    let failed = Txn {
        compare: vec![Compare::ModRevision {
            key: "a".into(),
            revision: 0,
        }],
        success: vec![put("a", "2")],
        ..Txn::default()
    };
    let failed = p.txn(failed).await;
    assert!(!failed.succeeded);
    assert_eq!((failed.revision, failed.results.len()), (base, 0));
    assert_eq!(
        p.put("a", "1").await,
        base + 1,
        "the same value again is a change"
    );
}

async fn every_comparison_holds_and_fails(p: Probe) {
    let created = p.put("a", "1").await;
    let changed = p.put("a", "2").await;
    let key = || "a".into();
    let absent = || "absent".into();
    let holds = [
        Compare::ModRevision {
            key: key(),
            revision: changed,
        },
        Compare::ModRevision {
            key: absent(),
            revision: 0,
        },
        Compare::CreateRevision {
            key: key(),
            revision: created,
        },
        Compare::CreateRevision {
            key: absent(),
            revision: 0,
        },
        Compare::Version {
            key: key(),
            version: 2,
        },
        Compare::Version {
            key: absent(),
            version: 0,
        },
        Compare::Value {
            key: key(),
            value: "2".into(),
        },
    ];
    let fails = [
        Compare::ModRevision {
            key: key(),
            revision: created,
        },
        Compare::ModRevision {
            key: key(),
            revision: 0,
        },
        Compare::ModRevision {
            key: absent(),
            revision: changed,
        },
        Compare::CreateRevision {
            key: key(),
            revision: changed,
        },
        Compare::CreateRevision {
            key: key(),
            revision: 0,
        },
        Compare::Version {
            key: key(),
            version: 1,
        },
        Compare::Version {
            key: key(),
            version: 0,
        },
        Compare::Value {
            key: key(),
            value: "1".into(),
        },
        Compare::Value {
            key: absent(),
            value: "".into(),
        },
    ];
    for compare in &holds {
        let txn = Txn {
            compare: vec![compare.clone()],
            ..Txn::default()
        };
        assert!(p.txn(txn).await.succeeded, "{compare:?}");
    }
    for compare in fails {
        let name = format!("{compare:?}");
        let txn = Txn {
            compare: vec![compare.clone()],
            ..Txn::default()
        };
        assert!(!p.txn(txn).await.succeeded, "{name}");
        let mixed = Txn {
            compare: vec![holds[0].clone(), compare],
            ..Txn::default()
        };
        assert!(
            !p.txn(mixed).await.succeeded,
            "{name} beside one that holds"
        );
    }
    assert!(
        p.txn(Txn {
            compare: holds.to_vec(),
            ..Txn::default()
        })
        .await
        .succeeded
    );
}

async fn the_failing_branch_is_carried_out(p: Probe) {
    p.put("a", "1").await;
    let txn = Txn {
        compare: vec![Compare::Version {
            key: "a".into(),
            version: 0,
        }],
        success: vec![put("a", "created")],
        failure: vec![Op::Range(Range::key("a")), put("b", "seen")],
    };
    let done = p.txn(txn).await;
    assert!(!done.succeeded);
    assert_eq!(pairs(&read(&done.results[0]).kvs)[0].1, "1");
    assert!(p.get("b").await.is_some());
}

async fn steps_see_the_steps_before_them(p: Probe) {
    p.put("k/a", "old").await;
    p.put("k/b", "old").await;
    p.put("k/d", "old").await;
    let list = || Op::Range(Range::prefix("k/"));
    let txn = Txn {
        success: vec![
            list(),
            put("k/a", "new"),
            put("k/c", "new"),
            delete("k/b"),
            list(),
        ],
        ..Txn::default()
    };
    let done = p.txn(txn).await;
    assert_eq!(read(&done.results[0]).count, 3);
    let seen = pairs(&read(&done.results[4]).kvs);
    let seen: Vec<String> = seen.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(seen, ["k/a=new", "k/c=new", "k/d=old"]);
    assert_eq!(read(&done.results[4]).revision, done.revision);
}

async fn a_range_of_keys_is_deleted(p: Probe) {
    for key in ["a", "k/1", "k/2", "k/3", "l"] {
        p.put(key, "v").await;
    }
    let base = p.revision().await;
    let op = Op::DeleteRange {
        start: "k/".into(),
        end: "k0".into(),
    };
    let done = p
        .txn(Txn {
            success: vec![op.clone()],
            ..Txn::default()
        })
        .await;
    assert_eq!(done.revision, base + 1);
    match &done.results[0] {
        OpResult::Delete { prev } => assert_eq!(prev.len(), 3),
        other => panic!("{other:?}"),
    }
    assert_eq!(p.range(Range::prefix("")).await.count, 2);
    assert_eq!(
        p.txn(Txn {
            success: vec![op],
            ..Txn::default()
        })
        .await
        .revision,
        base + 1
    );
    let rest = Op::DeleteRange {
        start: "".into(),
        end: "".into(),
    };
    p.txn(Txn {
        success: vec![rest],
        ..Txn::default()
    })
    .await;
    assert_eq!(p.range(Range::prefix("")).await.count, 0);
}

async fn results_carry_what_was_there(p: Probe) {
    let first = p.put("a", "1").await;
    let done = p
        .txn(Txn {
            success: vec![put("a", "2"), put("b", "1")],
            ..Txn::default()
        })
        .await;
    match &done.results[..] {
        [
            OpResult::Put { prev: Some(prev) },
            OpResult::Put { prev: None },
        ] => {
            assert_eq!(
                (text(&prev.value), prev.mod_revision),
                ("1".to_owned(), first)
            );
        }
        other => panic!("{other:?}"),
    }
    let done = p
        .txn(Txn {
            success: vec![delete("a"), delete("absent")],
            ..Txn::default()
        })
        .await;
    match &done.results[..] {
        [OpResult::Delete { prev }, OpResult::Delete { prev: none }] => {
            assert_eq!((prev.len(), none.len(), prev[0].version), (1, 0, 2));
        }
        other => panic!("{other:?}"),
    }
}

async fn senseless_transactions_are_refused_whole(p: Probe) {
    let base = p.put("a", "1").await;
    let twice = vec![put("x", "1"), put("a", "2"), put("a", "3")];
    let both = vec![put("x", "1"), put("a", "2"), delete("a")];
    let covered = vec![
        put("k", "2"),
        Op::DeleteRange {
            start: "a".into(),
            end: "z".into(),
        },
    ];
    let nameless = vec![put("x", "1"), put("", "1")];
    for ops in [twice, both, covered, nameless] {
        let txn = Txn {
            success: ops.clone(),
            ..Txn::default()
        };
        let refused = p.store.txn(txn).await;
        assert!(
            matches!(refused, Err(StoreError::Invalid { .. })),
            "{refused:?}"
        );
        let unlucky = Txn {
            failure: ops,
            ..Txn::default()
        };
        assert!(
            p.store.txn(unlucky).await.is_err(),
            "the other branch counts as well"
        );
    }
    let future = vec![put("x", "1"), Op::Range(Range::key("a").at(base + 10))];
    let refused = p
        .store
        .txn(Txn {
            success: future,
            ..Txn::default()
        })
        .await;
    assert!(
        matches!(refused, Err(StoreError::FutureRevision { .. })),
        "{refused:?}"
    );
    assert_eq!(p.revision().await, base);
    assert_eq!(
        p.get("x").await,
        None,
        "a refused transaction leaves nothing"
    );
}

async fn large_values_survive(p: Probe) {
    let value = "x".repeat(1 << 20);
    let revision = p.put("large", &value).await;
    p.put("large", "small").await;
    let past = p.range(Range::key("large").at(revision)).await;
    assert_eq!(past.kvs[0].value.len(), 1 << 20);
}
