//! `evenkeel status` and `evenkeel why`: questions to a running cluster, through its API.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use evenkeel_client::Api;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Where the cluster is.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Data directory of the cluster; its kubeconfig is used [default: /var/lib/evenkeel]
    #[arg(long, env = "EVENKEEL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Use this kubeconfig instead
    #[arg(long, env = "KUBECONFIG", value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// What is asked about, for example pod/web-1 or deployment/web
    #[arg(value_name = "KIND/NAME")]
    question: String,

    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,

    #[command(flatten)]
    place: Place,
}

impl Place {
    /// The cluster of a data directory.
    pub(crate) fn of(data_dir: &std::path::Path) -> Self {
        Self {
            data_dir: Some(data_dir.to_owned()),
            kubeconfig: None,
        }
    }

    fn path(&self) -> PathBuf {
        // The data directory counts when it is given; otherwise a kubeconfig in the environment.
        match (&self.data_dir, &self.kubeconfig) {
            (Some(data), _) => data.join("kubeconfig"),
            (None, Some(path)) => path.clone(),
            (None, None) => PathBuf::from("/var/lib/evenkeel/kubeconfig"),
        }
    }

    /// URL and authority (PEM) of the cluster.
    pub(crate) fn server(&self) -> anyhow::Result<(String, String)> {
        crate::join::server_of(&self.path())
    }

    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let path = self.path();
        let found = Kubeconfig::read_from(&path).with_context(|| {
            format!(
                "can't read {}; is the cluster's data directory another one?",
                path.display()
            )
        })?;
        let config = Config::from_custom_kubeconfig(found, &KubeConfigOptions::default())
            .await
            .with_context(|| path.display().to_string())?;
        Ok(Client::try_from(config)?)
    }
}

pub(crate) fn wait<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start threads")?
        .block_on(work)
}

/// Says whether the cluster answers, which nodes it has, and what is not healthy.
pub(crate) fn status(place: &Place) -> anyhow::Result<()> {
    wait(async {
        let client = place.client().await?;
        let version = client
            .apiserver_version()
            .await
            .context("the API server does not answer; start it with: evenkeel up")?;
        println!("API server  {}", version.git_version);
        for node in Api::<Node>::all(client.clone())
            .list(&ListParams::default())
            .await?
        {
            let name = node.metadata.name.unwrap_or_default();
            let conditions = node
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let ready = conditions
                .iter()
                .any(|found| found.type_ == "Ready" && found.status == "True");
            println!(
                "node        {name}: {}",
                if ready { "Ready" } else { "NotReady" }
            );
        }
        let pods = Api::<Pod>::all(client)
            .list(&ListParams::default())
            .await?
            .items;
        let unhealthy: Vec<&Pod> = pods.iter().filter(|pod| !is_well(pod)).collect();
        println!(
            "pods        {} in all, {} not ready",
            pods.len(),
            unhealthy.len()
        );
        for pod in unhealthy {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            println!("            {namespace}/{name}: evenkeel why pod/{name} -n {namespace}");
        }
        Ok(())
    })
}

fn is_well(pod: &Pod) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    status.phase.as_deref() == Some("Succeeded")
        || status
            .conditions
            .iter()
            .flatten()
            .any(|found| found.type_ == "Ready" && found.status == "True")
}

/// Prints a cause chain.
pub(crate) fn why(args: &WhyArgs) -> anyhow::Result<()> {
    wait(async {
        let client = args.place.client().await?;
        let chain = evenkeel_explain::why(&client, &args.question, &args.namespace).await?;
        print!("{chain}");
        Ok(())
    })
}
