//! What a page says of its families, and which line of which family a sample is.

use std::collections::HashMap;

use super::line::{Comment, help};
use crate::{MetricType, Part};

/// Families whose types are remembered. What a page has beyond is passed on without a type.
const MOST: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Known(MetricType),
    /// OpenMetrics: its lines are gauges, each under its own name.
    GaugeHistogram,
}

#[derive(Default)]
struct Said {
    word: Option<Word>,
    help: String,
    unit: String,
    /// Series of it were passed on: its type stays.
    used: bool,
}

/// What a comment did.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// It says the same as before, or something new.
    Taken,
    /// The type is another than before, and nothing hung on the old one.
    Replaced,
    /// The type is another than that of the series passed on so far.
    Clash { family: String },
}

/// The families of one page.
#[derive(Default)]
pub struct Types(HashMap<String, Said>);

/// Which line of which family a sample is.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub family: String,
    pub metric_type: MetricType,
    pub part: Part,
    pub unit: String,
    pub help: String,
}

impl Types {
    pub fn comment(&mut self, comment: &Comment<'_>) -> Effect {
        match *comment {
            Comment::Type { family, word } => return self.set_type(family, word),
            Comment::Help { family, text } => {
                if let Some(said) = self.said(family)
                    && said.help.is_empty()
                {
                    said.help = help(text);
                }
            }
            Comment::Unit { family, unit } => {
                if let Some(said) = self.said(family) {
                    unit.clone_into(&mut said.unit);
                }
            }
            Comment::Nothing => {}
        }
        Effect::Taken
    }

    fn said(&mut self, family: &str) -> Option<&mut Said> {
        if !self.0.contains_key(family) {
            if self.0.len() >= MOST {
                return None;
            }
            self.0.insert(family.to_owned(), Said::default());
        }
        self.0.get_mut(family)
    }

    fn set_type(&mut self, family: &str, word: &str) -> Effect {
        let word = match word {
            "counter" => Word::Known(MetricType::Counter),
            "gauge" => Word::Known(MetricType::Gauge),
            "histogram" => Word::Known(MetricType::Histogram),
            "summary" => Word::Known(MetricType::Summary),
            "info" => Word::Known(MetricType::Info),
            "stateset" => Word::Known(MetricType::StateSet),
            "gaugehistogram" => Word::GaugeHistogram,
            _ => Word::Known(MetricType::Unknown),
        };
        let Some(said) = self.said(family) else { return Effect::Taken };
        match said.word {
            Some(old) if old == word => Effect::Taken,
            Some(_) if said.used => Effect::Clash { family: family.to_owned() },
            None if said.used => Effect::Clash { family: family.to_owned() },
            Some(_) => {
                said.word = Some(word);
                Effect::Replaced
            }
            None => {
                said.word = Some(word);
                Effect::Taken
            }
        }
    }

    /// Where a sample belongs. None: its family has no such line (a histogram's own name, a summary without a quantile).
    pub fn place(&mut self, name: &str, quantile: bool) -> Option<Place> {
        if let Some(Word::Known(own)) = self.word(name) {
            return match own {
                MetricType::Histogram => None,
                MetricType::Summary if !quantile => None,
                MetricType::Summary => Some(self.of(name, own, Part::Quantile, name)),
                _ => Some(self.of(name, own, Part::Value, name)),
            };
        }
        use MetricType::{Counter, Gauge, Histogram, Info, Summary};
        for (suffix, part, owners) in [
            ("_bucket", Some(Part::Bucket), &[Histogram] as &[_]),
            ("_sum", Some(Part::Sum), &[Histogram, Summary]),
            ("_count", Some(Part::Count), &[Histogram, Summary]),
            ("_total", None, &[Counter]),
            ("_info", None, &[Info]),
            ("_created", None, &[Counter, Histogram, Summary]),
        ] {
            let Some(base) = name.strip_suffix(suffix) else { continue };
            let Some(Word::Known(owner)) = self.word(base).filter(|w| match w {
                Word::Known(owner) => owners.contains(owner),
                Word::GaugeHistogram => false,
            }) else {
                continue;
            };
            return Some(match part {
                Some(part) => self.of(base, owner, part, base),
                // The host's families have whole names, and the creation time is a gauge beside its family.
                None if suffix == "_created" => {
                    let mut place = self.of(base, Gauge, Part::Value, name);
                    "seconds".clone_into(&mut place.unit);
                    place
                }
                None => self.of(base, owner, Part::Value, name),
            });
        }
        for suffix in ["_bucket", "_gsum", "_gcount"] {
            if let Some(base) = name.strip_suffix(suffix)
                && self.word(base) == Some(Word::GaugeHistogram)
            {
                return Some(self.of(base, Gauge, Part::Value, name));
            }
        }
        Some(self.of(name, MetricType::Unknown, Part::Value, name))
    }

    fn word(&self, family: &str) -> Option<Word> {
        self.0.get(family).and_then(|said| said.word)
    }

    fn of(&mut self, family: &str, metric_type: MetricType, part: Part, name: &str) -> Place {
        let said = self.said(family);
        let (unit, help) = match said {
            Some(said) => {
                said.used = true;
                (said.unit.clone(), said.help.clone())
            }
            None => (String::new(), String::new()),
        };
        Place { family: name.to_owned(), metric_type, part, unit, help }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exposition::line::comment;

    fn types(text: &str) -> Types {
        let mut types = Types::default();
        for line in text.lines() {
            assert_eq!(types.comment(&comment(line)), Effect::Taken, "{line}");
        }
        types
    }

    #[test]
    fn places() {
        let mut types = types(
            "# TYPE h histogram\n# TYPE s summary\n# TYPE c_total counter\n# TYPE o counter\n# HELP o a\\nb\n\
             # UNIT o joules\n# TYPE b info\n# TYPE g gaugehistogram\n# TYPE st stateset\n# TYPE odd_count gauge",
        );
        use MetricType as T;
        for (name, quantile, wanted) in [
            ("h_bucket", false, Some(("h", T::Histogram, Part::Bucket))),
            ("h_sum", false, Some(("h", T::Histogram, Part::Sum))),
            ("h_created", false, Some(("h_created", T::Gauge, Part::Value))),
            ("h", false, None),
            ("s", true, Some(("s", T::Summary, Part::Quantile))),
            ("s", false, None),
            ("s_count", false, Some(("s", T::Summary, Part::Count))),
            ("s_bucket", false, Some(("s_bucket", T::Unknown, Part::Value))),
            ("c_total", false, Some(("c_total", T::Counter, Part::Value))),
            ("o_total", false, Some(("o_total", T::Counter, Part::Value))),
            ("o_created", false, Some(("o_created", T::Gauge, Part::Value))),
            ("b_info", false, Some(("b_info", T::Info, Part::Value))),
            ("g_gsum", false, Some(("g_gsum", T::Gauge, Part::Value))),
            ("st", false, Some(("st", T::StateSet, Part::Value))),
            ("odd_count", false, Some(("odd_count", T::Gauge, Part::Value))),
            ("else", false, Some(("else", T::Unknown, Part::Value))),
        ] {
            let place = types.place(name, quantile);
            let got = place.as_ref().map(|p| (p.family.as_str(), p.metric_type, p.part));
            assert_eq!(got, wanted, "{name}");
        }
        let place = types.place("o_total", false).unwrap();
        assert_eq!((place.help.as_str(), place.unit.as_str()), ("a\nb", "joules"));
    }

    #[test]
    fn a_type_changes_while_nothing_hangs_on_it() {
        let mut types = types("# TYPE x gauge");
        assert_eq!(types.comment(&comment("# TYPE x counter")), Effect::Replaced);
        assert_eq!(types.place("x", false).unwrap().metric_type, MetricType::Counter);
        let clash = Effect::Clash { family: "x".to_owned() };
        assert_eq!(types.comment(&comment("# TYPE x gauge")), clash);
        assert_eq!(types.comment(&comment("# TYPE x counter")), Effect::Taken);
    }
}
