//! Settings of the audit log, in the names of kube-apiserver's flags.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use evenkeel_server::audit::{
    AuditOptions, Batch, Format, LogOptions, Mode, Rotation, WebhookOptions,
};
use serde::Deserialize;

use crate::config::UpArgs;

/// Whether requests wait until they are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AuditMode {
    /// They don't: events are sent in batches
    Batch,
    /// They do
    Blocking,
    /// They do, and are refused when they can't be recorded
    BlockingStrict,
}

impl From<AuditMode> for Mode {
    fn from(mode: AuditMode) -> Self {
        match mode {
            AuditMode::Batch => Self::Batch,
            AuditMode::Blocking => Self::Blocking,
            AuditMode::BlockingStrict => Self::BlockingStrict,
        }
    }
}

/// How lines of the audit log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuditFormat {
    /// A JSON object a line
    Json,
    /// A line of text
    Legacy,
}

/// Reads a duration as Go writes it.
fn duration(flag: &str, text: Option<String>, default: &str) -> anyhow::Result<Duration> {
    let text = text.unwrap_or_else(|| default.to_owned());
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|found| Duration::try_from(found).ok())
        .with_context(|| format!("--{flag} {text:?}: expected a duration like 30s"))
}

/// What is recorded and where, from flags and then from the config file. `None`: nothing is.
///
/// # Errors
/// A value is wrong, or events would go nowhere or come from nowhere.
pub(crate) fn settle(args: &UpArgs, file: &UpArgs) -> anyhow::Result<Option<AuditOptions>> {
    /// The flag, or what the file says.
    macro_rules! set {
        ($name:ident) => {
            args.$name.clone().or_else(|| file.$name.clone())
        };
    }
    let (path, config): (Option<PathBuf>, Option<PathBuf>) =
        (set!(audit_log_path), set!(audit_webhook_config_file));
    let Some(policy) = set!(audit_policy_file) else {
        anyhow::ensure!(
            path.is_none() && config.is_none(),
            "--audit-log-path and --audit-webhook-config-file record nothing without \
             --audit-policy-file"
        );
        return Ok(None);
    };
    anyhow::ensure!(
        path.is_some() || config.is_some(),
        "--audit-policy-file: say where to with --audit-log-path or --audit-webhook-config-file"
    );
    let log = path.map(|path| LogOptions {
        path,
        rotation: Rotation {
            max_age_days: set!(audit_log_maxage).unwrap_or(366),
            max_backups: set!(audit_log_maxbackup).unwrap_or(100),
            max_size_mb: set!(audit_log_maxsize).unwrap_or(100),
            compress: set!(audit_log_compress).unwrap_or(false),
        },
        format: match set!(audit_log_format) {
            Some(AuditFormat::Legacy) => Format::Legacy,
            _ => Format::Json,
        },
        mode: set!(audit_log_mode).unwrap_or(AuditMode::Blocking).into(),
        truncate: set!(audit_log_truncate_enabled).unwrap_or(false),
    });
    let webhook = match config {
        None => None,
        Some(config) => {
            let throttle = set!(audit_webhook_batch_throttle_enable).unwrap_or(true);
            let per_second = set!(audit_webhook_batch_throttle_qps).unwrap_or(10.0);
            let burst = set!(audit_webhook_batch_throttle_burst).unwrap_or(15);
            let batch = Batch {
                buffer_size: set!(audit_webhook_batch_buffer_size).unwrap_or(10_000),
                max_size: set!(audit_webhook_batch_max_size).unwrap_or(400),
                max_wait: duration(
                    "audit-webhook-batch-max-wait",
                    set!(audit_webhook_batch_max_wait),
                    "30s",
                )?,
                throttle: throttle.then_some((per_second, burst)),
            };
            anyhow::ensure!(
                batch.buffer_size > 0 && batch.max_size > 0,
                "--audit-webhook-batch-buffer-size and --audit-webhook-batch-max-size: must be \
                 positive numbers"
            );
            anyhow::ensure!(
                !throttle || (per_second > 0.0 && burst > 0),
                "--audit-webhook-batch-throttle-qps and --audit-webhook-batch-throttle-burst: must \
                 be positive numbers"
            );
            Some(WebhookOptions {
                config,
                initial_backoff: duration(
                    "audit-webhook-initial-backoff",
                    set!(audit_webhook_initial_backoff),
                    "10s",
                )?,
                mode: set!(audit_webhook_mode).unwrap_or(AuditMode::Batch).into(),
                batch,
                truncate: set!(audit_webhook_truncate_enabled).unwrap_or(false),
            })
        }
    };
    Ok(Some(AuditOptions {
        policy,
        log,
        webhook,
    }))
}
