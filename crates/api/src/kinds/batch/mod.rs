//! Jobs and cron jobs, as `pkg/apis/batch` and `pkg/registry/batch` of the reference.
//!
//! Fields behind gates that are off by default in 1.37 (`scheduling`) are dropped, as there.

mod cron_job;
mod indexes;
mod job;
mod policies;
mod status;

pub use cron_job::CronJobs;
pub use job::Jobs;
