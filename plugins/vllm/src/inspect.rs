//! The parts of an engine's answers that are looked at. Docker and Podman leave out, or write as `null`, what is empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// An entry of the list.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    pub id: String,
    #[serde(default, deserialize_with = "null")]
    pub names: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    pub image: String,
    #[serde(default, deserialize_with = "null")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null")]
    pub state: String,
    /// The engine's socket.
    #[serde(default)]
    pub picket_socket: String,
}

impl Listed {
    /// The first name without its slash; the id's beginning where there is none.
    pub fn name(&self) -> &str {
        let name = self.names.first().map_or("", |n| n.trim_start_matches('/'));
        if name.is_empty() { self.id.get(..12).unwrap_or(&self.id) } else { name }
    }
}

/// A container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Inspect {
    #[serde(deserialize_with = "null")]
    pub path: String,
    #[serde(deserialize_with = "null")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "null")]
    pub state: State,
    #[serde(deserialize_with = "null")]
    pub restart_count: u64,
    #[serde(deserialize_with = "null")]
    pub config: Config,
    #[serde(deserialize_with = "null")]
    pub host_config: HostConfig,
    #[serde(deserialize_with = "null")]
    pub network_settings: NetworkSettings,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    #[serde(deserialize_with = "null")]
    pub status: String,
    #[serde(deserialize_with = "null")]
    pub exit_code: i64,
    #[serde(rename = "OOMKilled", deserialize_with = "null")]
    pub oom_killed: bool,
    #[serde(deserialize_with = "null")]
    pub started_at: String,
    /// Of the life before this one.
    #[serde(deserialize_with = "null")]
    pub finished_at: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    #[serde(deserialize_with = "null")]
    pub image: String,
    #[serde(deserialize_with = "null")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null")]
    pub exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
}

impl Config {
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    #[serde(deserialize_with = "null")]
    pub network_mode: String,
    #[serde(deserialize_with = "null")]
    pub runtime: String,
    #[serde(deserialize_with = "null")]
    pub device_requests: Vec<DeviceRequest>,
    #[serde(deserialize_with = "null")]
    pub devices: Vec<Device>,
    #[serde(deserialize_with = "null")]
    pub memory: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceRequest {
    #[serde(deserialize_with = "null")]
    pub driver: String,
    #[serde(deserialize_with = "null")]
    pub count: i64,
    #[serde(rename = "DeviceIDs", deserialize_with = "null")]
    pub device_ids: Vec<String>,
    #[serde(deserialize_with = "null")]
    pub capabilities: Vec<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Device {
    #[serde(deserialize_with = "null")]
    pub path_on_host: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    #[serde(rename = "IPAddress", deserialize_with = "null")]
    pub ip_address: String,
    #[serde(deserialize_with = "null")]
    pub networks: BTreeMap<String, Network>,
    /// `8000/tcp` and where it is published.
    #[serde(deserialize_with = "null")]
    pub ports: BTreeMap<String, Option<Vec<Published>>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    #[serde(rename = "IPAddress", deserialize_with = "null")]
    pub ip_address: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Published {
    #[serde(deserialize_with = "null")]
    pub host_ip: String,
    #[serde(deserialize_with = "null")]
    pub host_port: String,
}

fn null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}

/// RFC 3339 as engines write it, in seconds since the Unix epoch; none for `0001-01-01T00:00:00Z`, "never".
pub fn unix_seconds(text: &str) -> Option<f64> {
    let (date, rest) = text.split_once('T')?;
    let mut parts = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let zone = rest.find(['Z', '+', '-'])?;
    let (clock, zone) = rest.split_at_checked(zone)?;
    let mut parts = clock.splitn(3, ':');
    let hours: f64 = parts.next()?.parse().ok()?;
    let minutes: f64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    let offset = if zone == "Z" {
        0.0
    } else {
        let (hours, minutes) = zone.get(1..)?.split_once(':')?;
        let minutes = hours.parse::<f64>().ok()? * 60.0 + minutes.parse::<f64>().ok()?;
        if zone.starts_with('-') { -minutes } else { minutes }
    };
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days of the civil calendar since 1970, counted in years that begin in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some(days as f64 * 86_400.0 + hours * 3600.0 + (minutes - offset) * 60.0 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_answer() {
        let text = include_str!("../tests/fixtures/inspect.json");
        let container: Inspect = serde_json::from_str(text).unwrap();
        assert_eq!(container.config.image, "svc/busybox:1");
        assert_eq!(container.config.labels["maker"], "svc");
        assert_eq!(container.host_config.network_mode, "none");
        assert_eq!(container.state.status, "running");
        assert_eq!(unix_seconds(&container.state.started_at), Some(1_795_244_965.849_616_3));
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0.0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600.0)),
            ("2026-11-21T08:09:25+01:00", Some(1_795_244_965.0)),
            ("2026-11-21T02:39:25.5-04:30", Some(1_795_244_965.5)),
            ("0001-01-01T00:00:00Z", None),
            ("", None),
            ("yesterday", None),
            ("2026-13-21T02:39:25Z", None),
        ] {
            assert_eq!(unix_seconds(text), expected, "{text}");
        }
    }
}
