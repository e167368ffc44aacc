//! Reads `KubeSchedulerConfiguration`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use serde::Deserialize;

use super::ProfileConfig;
use super::extender::FileExtender;
use crate::plugins::scoring::{ResourceWeight, Scoring, ShapePoint, Strategy};
use crate::plugins::spread::Defaults;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not of the form; the reader's words.
    #[error("{0}")]
    Form(String),
    /// It is of another kind.
    #[error(
        "apiVersion {0:?}, kind {1:?}; KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1 \
         is read"
    )]
    Kind(String, String),
    /// Something that is known and not done here.
    #[error("{0} is not supported by Evenkeel's scheduler")]
    Unsupported(String),
    /// A value that makes no sense.
    #[error("{0}")]
    Value(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    profiles: Vec<FileProfile>,
    percentage_of_nodes_to_score: Option<usize>,
    // Of how the reference runs, not of what it decides.
    #[serde(default, rename = "parallelism")]
    _parallelism: serde::de::IgnoredAny,
    #[serde(default, rename = "leaderElection")]
    _leader_election: serde::de::IgnoredAny,
    #[serde(default, rename = "clientConnection")]
    _client_connection: serde::de::IgnoredAny,
    #[serde(default)]
    extenders: Vec<FileExtender>,
    pod_initial_backoff_seconds: Option<u64>,
    pod_max_backoff_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileProfile {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<usize>,
    #[serde(default)]
    plugins: std::collections::BTreeMap<String, PluginList>,
    #[serde(default)]
    plugin_config: Vec<PluginConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginList {
    #[serde(default)]
    enabled: Vec<NamedPlugin>,
    #[serde(default)]
    disabled: Vec<NamedPlugin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedPlugin {
    name: String,
    weight: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfig {
    name: String,
    #[serde(default)]
    args: serde_json::Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FitArgs {
    scoring_strategy: Option<ScoringStrategy>,
    #[serde(default)]
    ignored_resources: Vec<String>,
    #[serde(default)]
    ignored_resource_groups: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScoringStrategy {
    #[serde(rename = "type")]
    kind: String,
    resources: Option<Vec<Resource>>,
    requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ratio {
    shape: Vec<Point>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    utilization: i64,
    score: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    name: String,
    weight: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BalancedArgs {
    resources: Option<Vec<Resource>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpreadArgs {
    default_constraints: Option<Vec<TopologySpreadConstraint>>,
    defaulting_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InterPodArgs {
    hard_pod_affinity_weight: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PreemptionArgs {
    min_candidate_nodes_percentage: Option<usize>,
    min_candidate_nodes_absolute: Option<usize>,
}

/// The field's names of the points, and ours.
const POINTS: &[(&str, &str)] = &[
    ("multiPoint", "multi_point"),
    ("preEnqueue", "pre_enqueue"),
    ("preFilter", "pre_filter"),
    ("filter", "filter"),
    ("postFilter", "post_filter"),
    ("preScore", "pre_score"),
    ("score", "score"),
    ("reserve", "reserve"),
    ("preBind", "pre_bind"),
    ("postBind", "post_bind"),
    ("bind", "bind"),
];

/// The plugins that can be named.
const PLUGINS: &[&str] = &[
    "SchedulingGates",
    "NodeUnschedulable",
    "NodeName",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "VolumeRestrictions",
    "NodeVolumeLimits",
    "VolumeBinding",
    "VolumeZone",
    "DynamicResources",
    "PodTopologySpread",
    "InterPodAffinity",
    "NodeResourcesBalancedAllocation",
    "ImageLocality",
    "DefaultPreemption",
    "DefaultBinder",
];

/// Reads a configuration, YAML or JSON: its profiles.
///
/// # Errors
/// It is malformed, or wants something that is not done here.
pub fn read(text: &str) -> Result<Vec<ProfileConfig>, ConfigError> {
    let file: File =
        serde_saphyr::from_str(text).map_err(|error| ConfigError::Form(error.to_string()))?;
    if file.kind != "KubeSchedulerConfiguration"
        || file.api_version != "kubescheduler.config.k8s.io/v1"
    {
        return Err(ConfigError::Kind(file.api_version, file.kind));
    }
    if file
        .pod_initial_backoff_seconds
        .is_some_and(|seconds| seconds != 1)
        || file
            .pod_max_backoff_seconds
            .is_some_and(|seconds| seconds != 10)
    {
        return Err(ConfigError::Unsupported(
            "a back-off other than 1 to 10 seconds".to_owned(),
        ));
    }
    let mut configs: Vec<ProfileConfig> = Vec::new();
    for profile in file.profiles {
        let mut config = ProfileConfig {
            percentage_of_nodes_to_score: profile
                .percentage_of_nodes_to_score
                .or(file.percentage_of_nodes_to_score)
                .unwrap_or(0),
            ..ProfileConfig::default()
        };
        if let Some(name) = profile.scheduler_name {
            config.scheduler_name = name;
        }
        if configs
            .iter()
            .any(|other| other.scheduler_name == config.scheduler_name)
        {
            let name = &config.scheduler_name;
            return Err(ConfigError::Value(format!(
                "profile {name:?} is there twice"
            )));
        }
        for (point, list) in profile.plugins {
            choose(&mut config, &point, list)?;
        }
        for PluginConfig { name, args } in profile.plugin_config {
            arguments(&mut config, &name, args)?;
        }
        configs.push(config);
    }
    if configs.is_empty() {
        configs.push(ProfileConfig {
            percentage_of_nodes_to_score: file.percentage_of_nodes_to_score.unwrap_or(0),
            ..ProfileConfig::default()
        });
    }
    let ignored = file.extenders.iter().flat_map(FileExtender::ignored);
    let ignored: BTreeSet<String> = ignored.map(str::to_owned).collect();
    let extenders = file.extenders.into_iter().map(FileExtender::read);
    let extenders = extenders.collect::<Result<Vec<_>, _>>()?;
    let binders = extenders.iter().filter(|one| !one.bind_verb.is_empty());
    if binders.count() > 1 {
        return Err(ConfigError::Value(
            "extenders: only one extender can implement bind".to_owned(),
        ));
    }
    for config in &mut configs {
        config.extenders.clone_from(&extenders);
        config.ignored_resources.extend(ignored.iter().cloned());
    }
    Ok(configs)
}

fn choose(config: &mut ProfileConfig, point: &str, list: PluginList) -> Result<(), ConfigError> {
    let unsupported = |what: String| Err(ConfigError::Unsupported(what));
    let Some((_, ours)) = POINTS.iter().find(|(known, _)| *known == point) else {
        return unsupported(format!("plugins.{point}"));
    };
    for plugin in list.disabled {
        if plugin.name != "*" && !PLUGINS.contains(&plugin.name.as_str()) {
            return unsupported(format!("plugin {}", plugin.name));
        }
        config.disabled.insert(((*ours).to_owned(), plugin.name));
    }
    for plugin in list.enabled {
        if !PLUGINS.contains(&plugin.name.as_str()) {
            return unsupported(format!("plugin {}", plugin.name));
        }
        if let Some(weight) = plugin.weight.filter(|weight| *weight != 0) {
            config.weights.insert(plugin.name.clone(), weight);
        }
        config.enabled.insert(((*ours).to_owned(), plugin.name));
    }
    Ok(())
}

fn weights(resources: Vec<Resource>) -> Vec<ResourceWeight> {
    let weigh = |resource: Resource| ResourceWeight {
        name: resource.name.into(),
        weight: resource.weight.filter(|weight| *weight != 0).unwrap_or(1),
    };
    resources.into_iter().map(weigh).collect()
}

fn parse<T: serde::de::DeserializeOwned>(
    plugin: &str,
    mut args: serde_json::Value,
) -> Result<T, ConfigError> {
    if let Some(fields) = args.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    serde_json::from_value(args)
        .map_err(|error| ConfigError::Form(format!("pluginConfig {plugin}: {error}")))
}

fn arguments(
    config: &mut ProfileConfig,
    plugin: &str,
    args: serde_json::Value,
) -> Result<(), ConfigError> {
    match plugin {
        "NodeResourcesFit" => {
            let args: FitArgs = parse(plugin, args)?;
            config.ignored_resources.extend(args.ignored_resources);
            config.ignored_groups.extend(args.ignored_resource_groups);
            if let Some(strategy) = args.scoring_strategy {
                config.fit = scoring(strategy)?;
            }
        }
        "NodeResourcesBalancedAllocation" => {
            let args: BalancedArgs = parse(plugin, args)?;
            if let Some(resources) = args.resources {
                config.balanced = weights(resources);
            }
        }
        "PodTopologySpread" => {
            let args: SpreadArgs = parse(plugin, args)?;
            let list = args.default_constraints.unwrap_or_default();
            config.default_constraints = match args.defaulting_type.as_deref() {
                Some("List") => Defaults::List(list),
                None | Some("System" | "") if list.is_empty() => Defaults::System,
                _ => {
                    return Err(ConfigError::Value(
                        "pluginConfig PodTopologySpread: defaultConstraints need \
                         defaultingType List"
                            .to_owned(),
                    ));
                }
            };
        }
        "InterPodAffinity" => {
            let args: InterPodArgs = parse(plugin, args)?;
            if let Some(weight) = args.hard_pod_affinity_weight {
                config.hard_pod_affinity_weight = weight;
            }
        }
        "DefaultPreemption" => {
            let args: PreemptionArgs = parse(plugin, args)?;
            let preemption = &mut config.preemption;
            if let Some(percentage) = args.min_candidate_nodes_percentage {
                preemption.min_candidate_nodes_percentage = percentage;
            }
            if let Some(absolute) = args.min_candidate_nodes_absolute {
                preemption.min_candidate_nodes_absolute = absolute;
            }
        }
        other => {
            return Err(ConfigError::Unsupported(format!("pluginConfig of {other}")));
        }
    }
    Ok(())
}

fn scoring(strategy: ScoringStrategy) -> Result<Scoring, ConfigError> {
    let kind = match strategy.kind.as_str() {
        "LeastAllocated" => Strategy::LeastAllocated,
        "MostAllocated" => Strategy::MostAllocated,
        "RequestedToCapacityRatio" => {
            let shape = strategy
                .requested_to_capacity_ratio
                .map(|ratio| ratio.shape);
            let shape: Vec<ShapePoint> = shape
                .into_iter()
                .flatten()
                .map(|point| ShapePoint {
                    utilization: point.utilization,
                    score: point.score,
                })
                .collect();
            let ascends = shape
                .windows(2)
                .all(|pair| pair[0].utilization < pair[1].utilization);
            let within = shape.iter().all(|point| {
                (0..=100).contains(&point.utilization) && (0..=10).contains(&point.score)
            });
            if shape.is_empty() || !ascends || !within {
                return Err(ConfigError::Value(
                    "shape: points of ascending utilization from 0 to 100, scores from 0 to 10"
                        .to_owned(),
                ));
            }
            Strategy::RequestedToCapacityRatio(shape)
        }
        other => {
            return Err(ConfigError::Value(format!(
                "scoringStrategy.type {other:?}; LeastAllocated, MostAllocated or \
                 RequestedToCapacityRatio"
            )));
        }
    };
    let default = Scoring::default();
    Ok(Scoring {
        strategy: kind,
        resources: strategy.resources.map_or(default.resources, weights),
    })
}
