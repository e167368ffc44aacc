//! `evenkeel image …`: the image store of a data directory, whether or not the node runs.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use evenkeel_runtime::{ImageStatus, Images as _};

use crate::config::UpArgs;
use crate::node;

/// Flags shared by all image commands.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// Data directory of the node [default: /var/lib/evenkeel]
    #[arg(long, env = "EVENKEEL_DATA_DIR", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,

    /// Pull images of a registry from another place: HOST=URL (may be repeated)
    #[arg(
        long,
        env = "EVENKEEL_REGISTRY_MIRROR",
        value_name = "HOST=URL",
        value_delimiter = ',',
        global = true
    )]
    registry_mirror: Option<Vec<String>>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read images from a tar file (OCI layout or docker-archive)
    Import {
        /// The file
        file: PathBuf,
        /// Name it this, instead of the names in the file
        #[arg(long = "as", value_name = "REF")]
        name: Option<String>,
    },
    /// Fetch an image from its registry
    Pull {
        /// What to fetch
        reference: String,
    },
    /// List images
    List,
    /// Remove a name, and the image with its last name
    Remove {
        /// What to remove
        reference: String,
    },
}

pub(crate) fn main(args: ImageArgs) -> anyhow::Result<()> {
    let settings = UpArgs {
        data_dir: args.data_dir,
        registry_mirror: args.registry_mirror,
        ..UpArgs::default()
    }
    .settle()?;
    let images = node::images(&settings.data_dir, &settings.registry_mirrors)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start threads")?;
    runtime.block_on(async {
        match args.command {
            Command::Import { file, name } => {
                let found = images.import(&file, name.as_deref()).await?;
                for image in found {
                    println!("{}", line(&image, name.as_deref()));
                }
            }
            Command::Pull { reference } => {
                println!(
                    "{}",
                    line(&images.pull(&reference, None).await?, Some(&reference))
                );
            }
            Command::List => {
                println!("{:<50} {:<14} {:>10}", "NAME", "ID", "SIZE");
                for image in images.list().await? {
                    for name in &image.tags {
                        println!("{}", line(&image, Some(name)));
                    }
                    if image.tags.is_empty() {
                        println!("{}", line(&image, None));
                    }
                }
            }
            Command::Remove { reference } => images.remove(&reference).await?,
        }
        Ok(())
    })
}

/// One image under a name: the one that was asked for, or its first.
fn line(image: &ImageStatus, asked: Option<&str>) -> String {
    const MEBIBYTE: f64 = 1_048_576.0;
    let short = image
        .id
        .trim_start_matches("sha256:")
        .chars()
        .take(12)
        .collect::<String>();
    let names: Vec<&str> = image
        .tags
        .iter()
        .chain(&image.digests)
        .map(String::as_str)
        .collect();
    let name = asked.or(names.first().copied()).unwrap_or("<none>");
    #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let size = image.size as f64 / MEBIBYTE;
    format!("{name:<50} {short:<14} {size:>8.1}Mi")
}
