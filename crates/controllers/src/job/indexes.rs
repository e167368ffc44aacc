//! Sets of completion indexes, as a Job's status writes them: `1,3-5,7`.

use std::collections::BTreeSet;
use std::fmt;

/// Indexes, as ordered intervals that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads the written form. What can't be read is left out; what is not below `completions`
    /// does not exist any more.
    #[must_use]
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut all = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else {
                continue;
            };
            if first < 0 || first >= completions {
                continue;
            }
            all.add_interval(first, last.min(completions - 1));
        }
        all
    }

    fn add_interval(&mut self, mut first: i32, mut last: i32) {
        if last < first {
            return;
        }
        // Those that touch the new one become part of it.
        self.0.retain(|&(from, to)| {
            let apart = to < first - 1 || from > last + 1;
            if !apart {
                first = first.min(from);
                last = last.max(to);
            }
            apart
        });
        let at = self.0.partition_point(|&(from, _)| from < first);
        self.0.insert(at, (first, last));
    }

    /// Adds one index.
    pub fn add(&mut self, index: i32) {
        self.add_interval(index, index);
    }

    /// With more indexes.
    #[must_use]
    pub fn with(mut self, more: impl IntoIterator<Item = i32>) -> Self {
        for index in more {
            self.add(index);
        }
        self
    }

    /// With those of another set.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        for &(first, last) in &other.0 {
            self.add_interval(first, last);
        }
        self
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is this one among them?
    #[must_use]
    pub fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|&(_, last)| last < index);
        self.0.get(at).is_some_and(|&(first, _)| first <= index)
    }

    /// How many are in both.
    #[must_use]
    pub fn common(&self, other: &Self) -> i32 {
        let mut common = 0;
        for &(first, last) in &self.0 {
            for &(from, to) in &other.0 {
                common += (last.min(to) - first.max(from) + 1).max(0);
            }
        }
        common
    }

    /// The first `count` indexes below `completions` that are not here.
    #[must_use]
    pub fn missing(&self, completions: i32, count: usize) -> Vec<i32> {
        let mut found = Vec::new();
        let mut next = 0;
        let end = (completions, completions);
        for &(first, last) in self.0.iter().chain(std::iter::once(&end)) {
            while next < first.min(completions) && found.len() < count {
                found.push(next);
                next += 1;
            }
            next = next.max(last.saturating_add(1));
        }
        found
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, &(first, last)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<T: IntoIterator<Item = i32>>(indexes: T) -> Self {
        let sorted: BTreeSet<i32> = indexes.into_iter().collect();
        Self::default().with(sorted)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_written_form_is_the_references() {
        for (text, completions, wanted) in [
            ("", 5, ""),
            ("0", 5, "0"),
            ("0,1", 5, "0,1"),
            ("0-2", 5, "0-2"),
            ("0,1,2,4", 5, "0-2,4"),
            ("1,3-5,7", 6, "1,3-5"),
            ("2-9", 4, "2,3"),
            ("x,3", 5, "3"),
            ("7", 5, ""),
        ] {
            assert_eq!(Indexes::parse(text, completions).to_string(), wanted);
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set(
            a in prop::collection::btree_set(0i32..60, 0..30),
            b in prop::collection::btree_set(0i32..60, 0..30),
            completions in 0i32..70,
            count in 0usize..20,
        ) {
            let (one, two): (Indexes, Indexes) =
                (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(one.total() as usize, a.len());
            prop_assert_eq!(one.common(&two) as usize, a.intersection(&b).count());
            let both = one.clone().union(&two);
            prop_assert_eq!(both.total() as usize, a.union(&b).count());
            for index in 0..60 {
                prop_assert_eq!(one.has(index), a.contains(&index));
            }
            prop_assert_eq!(Indexes::parse(&one.to_string(), 60), one.clone());
            let wanted: Vec<i32> =
                (0..completions).filter(|it| !a.contains(it)).take(count).collect();
            prop_assert_eq!(one.missing(completions, count), wanted);
        }
    }
}
