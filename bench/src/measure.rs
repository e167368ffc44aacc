//! Samples, what is said of them, and the table and the raw file that they end up in.
//!
//! A measure keeps every sample. Nothing here knows what was measured.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

/// What a measure is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    /// The median must be below this.
    pub(crate) median: f64,
    /// The 99th percentile must be below this, where one is asked for.
    pub(crate) p99: Option<f64>,
    /// The median must be at least that much instead: for rates.
    pub(crate) at_least: bool,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Measure {
    /// What was measured.
    pub(crate) name: String,
    /// Unit of samples and floor.
    pub(crate) unit: &'static str,
    /// All samples, in the order in which they were taken.
    pub(crate) samples: Vec<f64>,
    /// The physical floor, measured in the same run, in the same unit, and what it is.
    pub(crate) floor: Option<(f64, &'static str)>,
    /// What it is held to.
    pub(crate) aim: Option<Aim>,
}

impl Measure {
    /// A measure without floor and aim.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, samples: Vec<f64>) -> Self {
        Self {
            name: name.into(),
            unit,
            samples,
            floor: None,
            aim: None,
        }
    }

    /// Beside a floor.
    pub(crate) fn floor(mut self, value: f64, what: &'static str) -> Self {
        self.floor = Some((value, what));
        self
    }

    /// Held to an upper bound of the median.
    pub(crate) fn below(mut self, median: f64) -> Self {
        self.aim = Some(Aim {
            median,
            p99: None,
            at_least: false,
        });
        self
    }

    /// Held to a lower bound of the median.
    pub(crate) fn at_least(mut self, median: f64) -> Self {
        self.aim = Some(Aim {
            median,
            p99: None,
            at_least: true,
        });
        self
    }

    /// Held to upper bounds of the median and the 99th percentile.
    pub(crate) fn below_both(mut self, median: f64, p99: f64) -> Self {
        self.aim = Some(Aim {
            median,
            p99: Some(p99),
            at_least: false,
        });
        self
    }

    /// The sample below which this part of all samples lies (nearest rank).
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        percentile(&self.samples, part)
    }

    /// The middle sample.
    pub(crate) fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    fn met(&self) -> Option<bool> {
        let aim = self.aim?;
        let tail = aim.p99.is_none_or(|p99| self.percentile(0.99) < p99);
        let middle = if aim.at_least {
            self.median() >= aim.median
        } else {
            self.median() < aim.median
        };
        Some(!self.samples.is_empty() && middle && tail)
    }

    fn raw(&self) -> Value {
        json!({
            "measure": self.name,
            "unit": self.unit,
            "median": self.median(),
            "p99": self.percentile(0.99),
            "samples": self.samples,
            "floor": self.floor.map(|(value, what)| json!({"value": value, "what": what})),
            "aim": self.aim.map(|aim| json!({
                "median": aim.median, "p99": aim.p99, "atLeast": aim.at_least,
            })),
            "met": self.met(),
        })
    }
}

/// The sample at a part of the sorted samples (nearest rank); not a number when there is none.
pub(crate) fn percentile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    // A rank of a slice: small, and never negative.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "ranks of a few thousand samples are exact"
    )]
    let rank = (part * count as f64).ceil() as usize;
    sorted
        .get(rank.clamp(1, count.max(1)) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

/// All that a run has measured; each measure is written down when it is there, so that a run
/// that ends early leaves what it has.
#[derive(Debug)]
pub(crate) struct Report {
    path: PathBuf,
    file: fs::File,
    measures: Vec<Measure>,
}

impl Report {
    /// Opens the raw file of this run.
    pub(crate) fn open(directory: &Path, about: &Value) -> anyhow::Result<Self> {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let name = jiff::Timestamp::now()
            .strftime("%Y%m%dT%H%M%SZ")
            .to_string();
        let path = directory.join(format!("{name}.jsonl"));
        let mut file = fs::File::create(&path).with_context(|| path.display().to_string())?;
        writeln!(file, "{about}")?;
        Ok(Self {
            path,
            file,
            measures: Vec::new(),
        })
    }

    /// Where the raw figures are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes in a measure and says on stderr that it is there.
    pub(crate) fn add(&mut self, measure: Measure) -> anyhow::Result<()> {
        writeln!(self.file, "{}", measure.raw())?;
        eprintln!(
            "  {}: {} {} (p99 {})",
            measure.name,
            short(measure.median()),
            measure.unit,
            short(measure.percentile(0.99))
        );
        self.measures.push(measure);
        Ok(())
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let heads = [
            "measure", "floor", "median", "p99", "unit", "n", "ratio", "aim", "met",
        ];
        let mut rows = vec![heads.map(str::to_owned)];
        for measure in &self.measures {
            rows.push([
                measure.name.clone(),
                measure
                    .floor
                    .map_or_else(String::new, |(value, _)| short(value)),
                short(measure.median()),
                short(measure.percentile(0.99)),
                measure.unit.to_owned(),
                measure.samples.len().to_string(),
                measure.floor.map_or_else(String::new, |(value, _)| {
                    format!("{:.1}", measure.median() / value)
                }),
                measure.aim.map_or_else(String::new, |aim| match aim.p99 {
                    Some(p99) => format!("< {} / {}", short(aim.median), short(p99)),
                    None if aim.at_least => format!(">= {}", short(aim.median)),
                    None => format!("< {}", short(aim.median)),
                }),
                measure
                    .met()
                    .map_or("", |met| if met { "yes" } else { "NO" })
                    .to_owned(),
            ]);
        }
        let widths: Vec<usize> = (0..heads.len())
            .map(|column| {
                rows.iter()
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for row in &rows {
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Names to the left, figures to the right. Writing into a String can't fail.
                let written = if index == 0 {
                    write!(out, "{cell:<width$}")
                } else {
                    write!(out, "  {cell:>width$}")
                };
                written.unwrap_or_default();
            }
            out.push('\n');
        }
        let mut floors: Vec<&str> = self
            .measures
            .iter()
            .filter_map(|measure| measure.floor.map(|(_, what)| what))
            .collect();
        floors.dedup();
        if !floors.is_empty() {
            out.push_str("floors: ");
            out.push_str(&floors.join("; "));
            out.push('\n');
        }
        out
    }

    /// How many aims were missed.
    pub(crate) fn missed(&self) -> usize {
        self.measures
            .iter()
            .filter(|measure| measure.met() == Some(false))
            .count()
    }
}

/// A figure with three digits.
fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&samples, 0.5), 100.0);
        assert_eq!(percentile(&samples, 0.99), 198.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn an_aim_is_missed_by_median_or_tail() {
        let measure = Measure::new("a", "ms", vec![1.0, 1.0, 9.0]);
        assert_eq!(measure.clone().below(2.0).met(), Some(true));
        assert_eq!(measure.clone().below_both(2.0, 5.0).met(), Some(false));
        assert_eq!(measure.clone().at_least(1.0).met(), Some(true));
        assert_eq!(measure.clone().at_least(1.1).met(), Some(false));
        assert_eq!(measure.met(), None);
        assert_eq!(
            Measure::new("none", "ms", Vec::new()).below(1.0).met(),
            Some(false)
        );
    }
}
