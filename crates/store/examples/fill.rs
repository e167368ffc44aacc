//! Fills the store of a stopped server with copies of one object, to see what many of them cost:
//! `fill DATA-DIR/store COUNT KEY-PREFIX < object.json`. In the object, `NAME` becomes a name and
//! `UID` an identity of its own.

#![allow(clippy::unwrap_used, reason = "a tool that cannot go on stops")]

use std::io::Read as _;
use std::path::Path;

use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use evenkeel_store::{Op, Store, Txn};

const CHUNK: u64 = 1000;

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(count), Some(prefix)) = (args.next(), args.next(), args.next()) else {
        eprintln!("fill DATA-DIR/store COUNT KEY-PREFIX < object.json");
        return;
    };
    let count: u64 = count.parse().unwrap();
    let mut object = String::new();
    std::io::stdin().read_to_string(&mut object).unwrap();
    let object = object.trim();
    let store = EmbeddedStore::open(Path::new(&dir), EmbeddedOptions::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        for chunk in 0..count.div_ceil(CHUNK) {
            let numbers = chunk * CHUNK..count.min((chunk + 1) * CHUNK);
            let success = numbers.map(|number| {
                let name = format!("copy-{number:07}");
                let uid = format!("00000000-0000-4000-8000-{number:012}");
                Op::Put {
                    key: format!("{prefix}{name}").into(),
                    value: object.replace("NAME", &name).replace("UID", &uid).into(),
                }
            });
            let txn = Txn {
                success: success.collect(),
                ..Txn::default()
            };
            store.txn(txn).await.unwrap();
        }
        println!("{:?}", store.stats().await.unwrap());
    });
}
