//! What a file of a hardware monitor is called as a metric.

/// What a sensor measures: the letters that its files begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(&'static str);

const KINDS: [&str; 14] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
    "freq",
];

impl Kind {
    pub const fn word(self) -> &'static str {
        self.0
    }
}

/// From the driver's unit to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    One,
    Thousandth,
    Millionth,
}

/// Where the values of a file go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    pub name: String,
    pub help: String,
    pub scale: Scale,
    pub counts: bool,
    /// 1 for a `1`, 0 for anything else.
    pub is_flag: bool,
    /// The sensor goes by its label.
    pub by_label: bool,
}

/// `temp1_crit_alarm` is `temp`, 1, `crit_alarm`. None: it is no sensor's file.
pub fn split(file: &str) -> Option<(Kind, u64, &str)> {
    let digits = file.find(|c: char| c.is_ascii_digit());
    let (letters, rest) = file.split_at_checked(digits.unwrap_or(file.len()))?;
    if let Some(kind) = KINDS.iter().find(|kind| **kind == letters) {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, property) = rest.split_at_checked(end)?;
        let property = match property.strip_prefix('_') {
            Some("") => return None,
            Some(property) => property,
            None if property.is_empty() => "",
            None => return None,
        };
        let number = if number.is_empty() { 0 } else { number.parse().ok()? };
        return Some((Kind(kind), number, property));
    }
    None
}

/// Small letters, digits, `_` and `:`; what else there is becomes `_`, and at the ends nothing.
pub fn clean(text: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, ':' | '_');
    let text: String = text.to_lowercase().chars().map(|c| if plain(c) { c } else { '_' }).collect();
    text.trim_matches('_').to_owned()
}

/// Where a link of a folder leads to, by the letters of the path: what sysfs links to has no links on its way.
pub fn join(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let folder = if target.starts_with('/') { "" } else { folder };
    for part in folder.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The family of a property; `bare` where the sensor has a file without one. None: it has no value.
pub fn family(kind: Kind, property: &str, bare: bool) -> Option<Family> {
    let word = kind.0;
    let family = |name: &str, help: String| Family {
        name: format!("node_hwmon_{name}"),
        help,
        scale: Scale::One,
        counts: false,
        is_flag: false,
        by_label: false,
    };
    match word {
        // Of these the file alone counts.
        "beep_enable" | "vrm" | "update_interval" if !property.is_empty() => return None,
        "beep_enable" => {
            return Some(Family { is_flag: true, ..family("beep_enabled", "Hardware beep enabled".into()) });
        }
        "vrm" => return Some(family("voltage_regulator_version", "Hardware voltage regulator".into())),
        "update_interval" => {
            let plain = family("update_interval_seconds", "Hardware monitor update interval".into());
            return Some(Family { scale: Scale::Thousandth, ..plain });
        }
        _ => {}
    }
    let name = match property {
        "label" => return None,
        "" => word.to_owned(),
        // The value itself.
        "input" if !bare => word.to_owned(),
        property => format!("{word}_{}", clean(property)),
    };
    let scaled =
        |unit: &str, scale: Scale, help: String| Family { scale, ..family(&format!("{name}{unit}"), help) };
    Some(match (word, property) {
        (_, "fault" | "alarm") => family(&name, format!("Hardware sensor {property} status ({word})")),
        (_, "beep") => {
            family(&format!("{name}_enabled"), "Hardware monitor sensor has beeping enabled".into())
        }
        ("in" | "cpu", _) => {
            scaled("_volts", Scale::Thousandth, format!("Hardware monitor for voltage ({property})"))
        }
        ("temp", property) if property != "type" => {
            let of = if property.is_empty() { "input" } else { property };
            scaled("_celsius", Scale::Thousandth, format!("Hardware monitor for temperature ({of})"))
        }
        ("curr", _) => {
            scaled("_amps", Scale::Thousandth, format!("Hardware monitor for current ({property})"))
        }
        ("energy", _) => Family {
            counts: true,
            ..scaled(
                "_joule_total",
                Scale::Millionth,
                format!("Hardware monitor for joules used so far ({property})"),
            )
        },
        ("power", "accuracy") => {
            scaled("", Scale::Millionth, "Hardware monitor power meter accuracy, as a ratio".into())
        }
        ("power", "average_interval" | "average_interval_min" | "average_interval_max") => scaled(
            "_seconds",
            Scale::Thousandth,
            format!("Hardware monitor power usage update interval ({property})"),
        ),
        ("power", _) => scaled(
            "_watt",
            Scale::Millionth,
            format!("Hardware monitor for power usage in watts ({property})"),
        ),
        ("humidity", _) => scaled(
            "",
            Scale::Millionth,
            format!(
                "Hardware monitor for humidity, as a ratio (multiply with 100.0 to get the humidity as a percentage) \
                 ({property})"
            ),
        ),
        ("fan", "input" | "min" | "max" | "target") => scaled(
            "_rpm",
            Scale::One,
            format!("Hardware monitor for fan revolutions per minute ({property})"),
        ),
        ("freq", "input") => Family {
            by_label: true,
            ..scaled("_freq_mhz", Scale::Millionth, "Hardware monitor for GPU frequency in MHz".into())
        },
        _ => family(&name, format!("Hardware monitor {word} element {property}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files() {
        for (file, want) in [
            ("temp1_input", Some(("temp", 1, "input"))),
            ("temp10_crit_alarm", Some(("temp", 10, "crit_alarm"))),
            ("temp01_max", Some(("temp", 1, "max"))),
            ("pwm2", Some(("pwm", 2, ""))),
            ("update_interval", Some(("update_interval", 0, ""))),
            ("beep_enable", Some(("beep_enable", 0, ""))),
            ("power", Some(("power", 0, ""))),
            ("power_state", None),
            ("temp", Some(("temp", 0, ""))),
            ("temp1_", None),
            ("temp1x", None),
            ("temp99999999999999999999_input", None),
            ("name", None),
            ("uevent", None),
            ("1temp", None),
            ("", None),
        ] {
            let got = split(file).map(|(kind, number, property)| (kind.word(), number, property));
            assert_eq!(got, want, "{file:?}");
        }
    }

    #[test]
    fn words_and_links() {
        assert_eq!(clean("coretemp.0\n"), "coretemp_0");
        assert_eq!(clean("__Tctl (a):b"), "tctl__a_:b");
        assert_eq!(clean("°C"), "c");
        let class = join("/sys/class/hwmon", "../../devices/platform/coretemp.0/hwmon/hwmon3");
        assert_eq!(class, "/sys/devices/platform/coretemp.0/hwmon/hwmon3");
        assert_eq!(join(&class, "../../../coretemp.0"), "/sys/devices/platform/coretemp.0");
        assert_eq!(join("/a", "../../../b"), "/b");
        assert_eq!(join("/a", "/c/d"), "/c/d");
    }

    proptest! {
        #[test]
        fn any_name(file in ".{0,24}", text in ".{0,24}") {
            if let Some((kind, _, property)) = split(&file) {
                for bare in [false, true] {
                    if let Some(family) = family(kind, property, bare) {
                        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, ':' | '_');
                        prop_assert!(family.name.chars().all(plain), "{}", family.name);
                    }
                }
            }
            prop_assert!(join(&file, &text).starts_with('/'));
        }
    }
}
