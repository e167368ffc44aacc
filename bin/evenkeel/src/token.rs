//! `evenkeel token`: bootstrap tokens, by which a machine that nobody knows yet asks for its
//! certificates. What is made and shown is what kubeadm makes and shows.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use evenkeel_api::clock::{Clock as _, SystemClock, rfc3339};
use evenkeel_client::Api;
use evenkeel_server::pki::join::key_hash;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, PostParams};
use rand::Rng as _;
use serde_json::json;

use crate::ask::{self, Place};

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// The type of their Secrets.
const KIND: &str = "bootstrap.kubernetes.io/token";
/// The group of those who join with one.
const GROUP: &str = "system:bootstrappers:evenkeel:default-node-token";

/// Arguments of `evenkeel token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it
    Create {
        /// The token, ID.SECRET [default: a random one]
        token: Option<String>,

        /// How long it may be used; 0 for ever
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        ttl: String,

        /// What it is for, for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,

        /// Print the whole command with which a machine joins
        #[arg(long)]
        print_join_command: bool,

        #[command(flatten)]
        place: Place,
    },
    /// List tokens
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Delete tokens
    Delete {
        /// Tokens, or their parts before the dot
        #[arg(required = true, value_name = "TOKEN")]
        tokens: Vec<String>,

        #[command(flatten)]
        place: Place,
    },
}

fn letters(count: usize) -> String {
    let mut random = rand::rng();
    (0..count)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect()
}

fn is_plain(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| LETTERS.contains(&byte))
}

/// The two parts of a token.
fn parts(token: &str) -> anyhow::Result<(String, String)> {
    let found = token
        .split_once('.')
        .filter(|(id, secret)| is_plain(id, 6) && is_plain(secret, 16));
    let (id, secret) = found.with_context(|| {
        format!("{token:?} is no token: expected six small letters or digits, a dot, and sixteen")
    })?;
    Ok((id.to_owned(), secret.to_owned()))
}

/// When a token ends that lives so long from now on; `None`: never.
fn end(ttl: &str, now: Timestamp) -> anyhow::Result<Option<Timestamp>> {
    if ttl == "0" {
        return Ok(None);
    }
    let life: SignedDuration = ttl
        .parse()
        .with_context(|| format!("--ttl {ttl:?}: expected a duration like 24h"))?;
    anyhow::ensure!(!life.is_negative(), "--ttl {ttl:?}: it is negative");
    if life.is_zero() {
        return Ok(None);
    }
    let end = now.checked_add(life);
    end.map(Some)
        .with_context(|| format!("--ttl {ttl:?}: it is too long"))
}

fn secrets(client: kube::Client) -> Api<Secret> {
    Api::namespaced(client, "kube-system")
}

async fn create(
    place: &Place,
    token: Option<&str>,
    ttl: &str,
    description: Option<String>,
    print_join_command: bool,
) -> anyhow::Result<()> {
    let (id, secret) = match token {
        Some(token) => parts(token)?,
        None => (letters(6), letters(16)),
    };
    let mut data = json!({
        "token-id": id, "token-secret": secret, "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true", "auth-extra-groups": GROUP,
    });
    if let Some(end) = end(ttl, SystemClock.now())? {
        data["expiration"] = rfc3339(end).into();
    }
    if let Some(description) = description {
        data["description"] = description.into();
    }
    let object: Secret = serde_json::from_value(json!({
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "type": KIND, "stringData": data,
    }))?;
    let api = secrets(place.client().await?);
    let made = api.create(&PostParams::default(), &object).await;
    made.with_context(|| format!("can't make token {id}"))?;
    if print_join_command {
        let (server, ca) = place.server()?;
        println!(
            "evenkeel node --server {server} --token {id}.{secret} --ca-cert-hash {}",
            key_hash(&ca)?
        );
    } else {
        println!("{id}.{secret}");
    }
    Ok(())
}

/// The time that is left, as kubeadm shows it: the largest unit that it has one of.
fn left(end: Timestamp, now: Timestamp) -> String {
    let seconds = end.duration_since(now).as_secs();
    match seconds {
        ..=0 => "<invalid>".to_owned(),
        1..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A line of the list.
fn line(secret: &Secret, now: Timestamp) -> Option<[String; 6]> {
    let data = secret.data.as_ref()?;
    let text = |name: &str| {
        let bytes = data
            .get(name)
            .map(|bytes| bytes.0.clone())
            .unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let or = |text: String, other: &str| {
        if text.is_empty() {
            other.to_owned()
        } else {
            text
        }
    };
    let expiration = text("expiration");
    let (ttl, expires) = match expiration.parse::<Timestamp>() {
        Ok(end) => (left(end, now), expiration),
        Err(_) => ("<forever>".to_owned(), "<never>".to_owned()),
    };
    let usages: Vec<&str> = ["authentication", "signing"]
        .into_iter()
        .filter(|usage| text(&format!("usage-bootstrap-{usage}")) == "true")
        .collect();
    Some([
        format!("{}.{}", text("token-id"), text("token-secret")),
        ttl,
        expires,
        or(usages.join(","), "<none>"),
        or(text("description"), "<none>"),
        or(text("auth-extra-groups"), "<none>"),
    ])
}

async fn list(place: &Place) -> anyhow::Result<()> {
    let api = secrets(place.client().await?);
    let of_kind = ListParams::default().fields(&format!("type={KIND}"));
    let found = api.list(&of_kind).await.context("can't list tokens")?;
    let now = SystemClock.now();
    let header = [
        "TOKEN",
        "TTL",
        "EXPIRES",
        "USAGES",
        "DESCRIPTION",
        "EXTRA GROUPS",
    ];
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(found.items.iter().filter_map(|secret| line(secret, now)));
    let width = |column: usize| {
        let all = lines.iter().map(|line| line[column].chars().count());
        all.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let text: String = cells
            .map(|(cell, width)| format!("{cell:<width$}   "))
            .collect();
        println!("{}", text.trim_end());
    }
    Ok(())
}

async fn delete(place: &Place, tokens: &[String]) -> anyhow::Result<()> {
    let api = secrets(place.client().await?);
    for token in tokens {
        let id = token.split('.').next().unwrap_or_default();
        anyhow::ensure!(
            is_plain(id, 6),
            "{token:?} is neither a token nor the part before its dot"
        );
        let name = format!("bootstrap-token-{id}");
        api.delete(&name, &DeleteParams::default())
            .await
            .with_context(|| format!("can't delete token {id}"))?;
        println!("bootstrap token \"{id}\" deleted");
    }
    Ok(())
}

pub(crate) fn main(args: TokenArgs) -> anyhow::Result<()> {
    ask::wait(async {
        match args.command {
            TokenCommand::Create {
                token,
                ttl,
                description,
                print_join_command,
                place,
            } => {
                create(
                    &place,
                    token.as_deref(),
                    &ttl,
                    description,
                    print_join_command,
                )
                .await
            }
            TokenCommand::List { place } => list(&place).await,
            TokenCommand::Delete { tokens, place } => delete(&place, &tokens).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_two_parts() {
        assert_eq!(
            parts("abcdef.0123456789abcdef").unwrap(),
            ("abcdef".to_owned(), "0123456789abcdef".to_owned())
        );
        for wrong in [
            "",
            "abcdef",
            "abcde.0123456789abcdef",
            "ABCDEF.0123456789abcdef",
        ] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
        let random = format!("{}.{}", letters(6), letters(16));
        assert!(parts(&random).is_ok(), "{random}");
    }

    #[test]
    fn a_life_is_a_duration_or_for_ever() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let day = Timestamp::from_second(1_086_400).unwrap();
        assert_eq!(end("24h", now).unwrap(), Some(day));
        assert_eq!(end("0", now).unwrap(), None);
        assert_eq!(end("0s", now).unwrap(), None);
        assert!(end("-1h", now).is_err() && end("soon", now).is_err());
        for (seconds, expected) in [
            (-1, "<invalid>"),
            (90, "90s"),
            (3600, "60m"),
            (86_399, "23h"),
            (864_000, "10d"),
        ] {
            let at = Timestamp::from_second(1_000_000 + seconds).unwrap();
            assert_eq!(left(at, now), expected);
        }
    }
}
