//! What keeps the cluster's state, looked after: backup, restore, check, a move to another engine,
//! and Secrets written again under the newest key.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use evenkeel_api::clock::{Clock as _, SystemClock};
use evenkeel_store::StoreError;
use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use evenkeel_store::etcd::EtcdStore;
use evenkeel_store::snapshot::{self, Summary};
use futures::{AsyncReadExt as _, Stream, StreamExt as _, TryStreamExt as _};
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, Client};

use crate::ask::{Place, wait};
use crate::config::{Settings, UpArgs};
use crate::open::{Opened, directory};

/// Revisions that may have been given out since a backup was taken: a restored store goes on beyond
/// them, so that nobody who has seen them believes to be ahead of it.
const BEYOND: u64 = 100_000_000;
/// Secrets that are read at once.
const PAGE: u32 = 200;

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Where the backup goes; nothing may be there
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    up: Box<UpArgs>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Put a store that is there aside, under the name `store.replaced`
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    up: Box<UpArgs>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A backup to check instead of the store
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    up: Box<UpArgs>,
}

/// An engine to move to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// From etcd into the data directory
    Embedded,
    /// From the data directory to etcd
    Etcd,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Move the state to another engine; no server may run
    Move {
        /// Where to
        to: Engine,
        #[command(flatten)]
        up: Box<UpArgs>,
    },
    /// Give free space in etcd back to the file system, one member after the other
    Defragment {
        #[command(flatten)]
        up: Box<UpArgs>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Write every Secret again, so that the newest encryption key seals it
    Rewrite {
        #[command(flatten)]
        place: Place,
    },
}

/// Takes a backup: from etcd, from the store in the data directory, or from the server that has it
/// open.
pub(crate) fn backup(args: BackupArgs) -> anyhow::Result<()> {
    let settings = args.up.settle()?;
    let file = args.file;
    let summary = wait(async {
        if settings.etcd.is_none() {
            let directory = directory(&settings);
            anyhow::ensure!(
                directory.exists(),
                "there is no store in {}",
                directory.display()
            );
            match Opened::open(&settings).await {
                Ok(opened) => {
                    let summary = write(&file, pieces(&opened)).await;
                    opened.close();
                    return summary;
                }
                Err(error) if is_locked(&error) => {
                    let place = Place::of(&settings.data_dir);
                    let client = place.client().await?;
                    let request = http::Request::get("/evenkeel/backup").body(Vec::new())?;
                    let reader = client
                        .request_stream(request)
                        .await
                        .context("the server does not give a backup")?;
                    return write(&file, chunks(reader)).await;
                }
                Err(error) => return Err(error),
            }
        }
        let opened = Opened::open(&settings).await?;
        write(&file, pieces(&opened)).await
    })?;
    println!("{}: {}", file.display(), words(summary));
    println!(
        "keep {} with it: without its keys, Secrets can't be read",
        settings.data_dir.join("pki").display()
    );
    Ok(())
}

fn words(summary: Summary) -> String {
    format!(
        "{} keys, {} bytes, revision {}",
        summary.keys, summary.bytes, summary.revision
    )
}

fn is_locked(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| matches!(cause.downcast_ref(), Some(StoreError::Locked { .. })))
}

fn pieces(opened: &Opened) -> impl Stream<Item = anyhow::Result<Vec<u8>>> + use<> {
    let taken = u64::try_from(SystemClock.now().as_second()).unwrap_or(0);
    snapshot::take(opened.store(), taken)
        .map_ok(|piece| piece.to_vec())
        .map_err(anyhow::Error::new)
}

fn chunks(
    reader: impl futures::AsyncBufRead + Send + Unpin,
) -> impl Stream<Item = anyhow::Result<Vec<u8>>> {
    futures::stream::try_unfold(reader, |mut reader| async move {
        let mut chunk = vec![0; 1 << 16];
        let read = reader.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok((read > 0).then_some((chunk, reader)))
    })
}

/// Writes a backup under another name first, and reads it back before it gets its own.
async fn write(
    file: &Path,
    pieces: impl Stream<Item = anyhow::Result<Vec<u8>>>,
) -> anyhow::Result<Summary> {
    anyhow::ensure!(
        !file.exists(),
        "{} is there already; choose another name",
        file.display()
    );
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let place = || format!("can't write {}", part.display());
    let mut pieces = std::pin::pin!(pieces);
    let written = async {
        use std::os::unix::fs::OpenOptionsExt as _;
        // What is not sealed is in there as it is: for nobody else to read.
        let mut out = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .with_context(place)?;
        while let Some(piece) = pieces.next().await {
            out.write_all(&piece.context("the backup was cut off")?)
                .with_context(place)?;
        }
        out.sync_all().with_context(place)?;
        Ok(snapshot::read(&part, |_| Ok(()))?)
    };
    match written.await {
        Ok(summary) => {
            std::fs::rename(&part, file).with_context(place)?;
            Ok(summary)
        }
        Err(error) => {
            std::fs::remove_file(&part).ok();
            Err(error)
        }
    }
}

/// Restores a backup into the data directory or into an etcd that is empty.
pub(crate) fn restore(args: RestoreArgs) -> anyhow::Result<()> {
    let settings = args.up.settle()?;
    // A damaged backup must not cost the store that is there.
    let found = snapshot::read(&args.file, |_| Ok(()))?;
    let summary = match &settings.etcd {
        Some(options) => {
            anyhow::ensure!(
                !args.replace,
                "--replace is for the embedded store; remove the keys from etcd yourself"
            );
            wait(async { Ok(EtcdStore::restore(options, &args.file, BEYOND).await?) })?
        }
        None => {
            let store = directory(&settings);
            let mut beyond = found.revision;
            if store.exists() {
                anyhow::ensure!(
                    args.replace,
                    "there is a store in {}; --replace puts it aside",
                    store.display()
                );
                beyond = beyond.max(put_aside(&store, "replaced")?);
            }
            std::fs::create_dir_all(&settings.data_dir)
                .with_context(|| format!("can't make {}", settings.data_dir.display()))?;
            EmbeddedStore::restore(&args.file, &store, beyond + BEYOND)?
        }
    };
    println!("restored {}", words(summary));
    Ok(())
}

/// Gives a store that nobody has open another name; answers its revision, 0 where it is damaged.
fn put_aside(store: &Path, suffix: &str) -> anyhow::Result<u64> {
    let revision = match EmbeddedStore::open(store, EmbeddedOptions::default()) {
        Ok(open) => wait(async { Ok(evenkeel_store::Store::revision(&open).await?) })?,
        Err(error @ StoreError::Locked { .. }) => return Err(error.into()),
        Err(_) => 0,
    };
    let aside = (0..)
        .map(|number: u32| match number {
            0 => store.with_extension(suffix),
            number => store.with_extension(format!("{suffix}{number}")),
        })
        .find(|name| !name.exists())
        .context("no name is left")?;
    std::fs::rename(store, &aside).with_context(|| format!("can't rename {}", store.display()))?;
    println!("{} is now {}", store.display(), aside.display());
    Ok(revision)
}

/// Checks a backup, or the store.
pub(crate) fn check(args: CheckArgs) -> anyhow::Result<()> {
    let settings = args.up.settle()?;
    if let Some(file) = &args.file {
        println!(
            "{}: sound: {}",
            file.display(),
            words(snapshot::read(file, |_| Ok(()))?)
        );
        return Ok(());
    }
    anyhow::ensure!(
        settings.etcd.is_none(),
        "etcd checks itself; take a backup, which reads everything"
    );
    let store = directory(&settings);
    let found = EmbeddedStore::check(&store).map_err(|error| match error {
        error @ StoreError::Locked { .. } => anyhow::Error::new(error)
            .context("stop the server, or take a backup, which reads everything and checks it"),
        error => error.into(),
    })?;
    println!(
        "{}: sound: {} keys, {} bytes, {} older versions, revisions {} to {}, {} bytes on disk",
        store.display(),
        found.keys,
        found.live_bytes,
        found.history,
        found.compacted,
        found.revision,
        found.size_on_disk
    );
    Ok(())
}

/// Moves the state to another engine, or tidies etcd up.
pub(crate) fn store(command: StoreCommand) -> anyhow::Result<()> {
    match command {
        StoreCommand::Move { to, up } => {
            let settings = (*up).settle()?;
            wait(relocate(to, &settings))
        }
        StoreCommand::Defragment { up } => {
            let settings = (*up).settle()?;
            wait(async {
                let Opened::Etcd(store) = Opened::open(&settings).await? else {
                    anyhow::bail!("the embedded store does it by itself, while it serves");
                };
                store.defragment().await?;
                println!("every member has given its free space back");
                Ok(())
            })
        }
    }
}

async fn relocate(to: Engine, settings: &Settings) -> anyhow::Result<()> {
    let options = settings
        .etcd
        .as_ref()
        .context("say where etcd is: --store etcd --etcd-endpoints https://HOST:2379,…")?;
    let directory = directory(settings);
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("can't make {}", settings.data_dir.display()))?;
    let file = settings.data_dir.join("move.snapshot");
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("can't remove {}", file.display()));
        }
        _ => {}
    }
    let embedded = Settings {
        etcd: None,
        ..settings.clone()
    };
    let summary = match to {
        Engine::Etcd => {
            anyhow::ensure!(
                directory.exists(),
                "there is no store in {}",
                directory.display()
            );
            let source = Opened::open(&embedded).await?;
            let summary = write(&file, pieces(&source)).await?;
            // The source stays open, so that nobody writes to it, until the copy is whole.
            EtcdStore::restore(options, &file, 0).await?;
            source.close();
            std::fs::rename(&directory, directory.with_extension("moved-to-etcd"))
                .with_context(|| format!("can't rename {}", directory.display()))?;
            summary
        }
        Engine::Embedded => {
            anyhow::ensure!(
                !directory.exists(),
                "there is a store in {} already",
                directory.display()
            );
            let source = Opened::open(settings).await?;
            let summary = write(&file, pieces(&source)).await?;
            EmbeddedStore::restore(&file, &directory, summary.revision + 1)?;
            let now = source.store().revision().await?;
            if now != summary.revision {
                std::fs::remove_dir_all(&directory)
                    .with_context(|| format!("can't remove {}", directory.display()))?;
                anyhow::bail!(
                    "somebody wrote to etcd meanwhile; stop every server, then try again"
                );
            }
            summary
        }
    };
    std::fs::remove_file(&file).with_context(|| format!("can't remove {}", file.display()))?;
    println!("moved {}", words(summary));
    Ok(())
}

/// Writes Secrets again.
pub(crate) fn secrets(command: SecretsCommand) -> anyhow::Result<()> {
    let SecretsCommand::Rewrite { place } = command;
    wait(async {
        let client = place.client().await?;
        let count = rewrite(client).await?;
        println!("{count} secrets are sealed with the newest key");
        Ok(())
    })
}

async fn rewrite(client: Client) -> anyhow::Result<usize> {
    let resource = kube::api::ApiResource::erase::<k8s_openapi::api::core::v1::Secret>(&());
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut params = ListParams::default().limit(PAGE);
    let mut count = 0;
    loop {
        let page = all.list(&params).await.context("secrets can't be listed")?;
        for secret in page.items {
            let namespace = secret.metadata.namespace.clone().unwrap_or_default();
            let name = secret.metadata.name.clone().unwrap_or_default();
            let api: Api<DynamicObject> =
                Api::namespaced_with(client.clone(), &namespace, &resource);
            let mut secret = Some(secret);
            // Who was faster than us has sealed it with the newest key, too; but it is no less work
            // to be sure.
            while let Some(current) = secret.take() {
                match api.replace(&name, &PostParams::default(), &current).await {
                    Ok(_) => count += 1,
                    Err(kube::Error::Api(status)) if status.code == 409 => {
                        secret = api.get_opt(&name).await?;
                    }
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => {
                        return Err(error).with_context(|| {
                            format!("secret {namespace}/{name} can't be written")
                        });
                    }
                }
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(count),
        }
    }
}
