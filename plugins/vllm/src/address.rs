//! Where a container's server is reached from the node.

use crate::arguments::Arguments;
use crate::inspect::Inspect;

/// The container's label that names the port, where nothing else does.
pub const PORT_LABEL: &str = "picket.port";
/// vLLM's own.
const DEFAULT_PORT: u16 = 8000;

/// The base URL. In this order: the port's published place, the host's own network, the container's address.
///
/// # Errors
/// A container that can't be reached, in words.
pub fn of(container: &Inspect, arguments: &Arguments) -> Result<String, String> {
    let scheme = if arguments.https { "https" } else { "http" };
    let port = port(container, arguments)?;
    let url = |host: &str, port: u16| {
        if host.contains(':') {
            format!("{scheme}://[{host}]:{port}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    };
    let mode = container.host_config.network_mode.as_str();
    if mode == "host" {
        let host = match arguments.host.as_str() {
            "" | "0.0.0.0" | "::" | "localhost" => "127.0.0.1",
            host => host,
        };
        return Ok(url(host, port));
    }
    let settings = &container.network_settings;
    let published = settings.ports.get(&format!("{port}/tcp")).and_then(Option::as_ref);
    if let Some(place) = published.and_then(|places| places.iter().find(|p| !p.host_port.is_empty())) {
        let host = match place.host_ip.as_str() {
            "" | "0.0.0.0" | "::" => "127.0.0.1",
            host => host,
        };
        if let Ok(port) = place.host_port.parse() {
            return Ok(url(host, port));
        }
    }
    let networks = settings.networks.values().map(|n| n.ip_address.as_str());
    let mut addresses = std::iter::once(settings.ip_address.as_str()).chain(networks);
    match addresses.find(|a| !a.is_empty()) {
        Some(address) => Ok(url(address, port)),
        None if mode == "none" => Err("it has no network".to_owned()),
        None if mode.starts_with("container:") => Err("it has another container's network".to_owned()),
        None => Err("it has no address".to_owned()),
    }
}

/// The port inside the container.
fn port(container: &Inspect, arguments: &Arguments) -> Result<u16, String> {
    if let Some(label) = container.config.labels.get(PORT_LABEL) {
        let port: Option<u16> = label.parse().ok().filter(|p| *p > 0);
        return port.ok_or_else(|| format!("its label {PORT_LABEL} is {label:?}, which is no port"));
    }
    if let Some(port) = arguments.port {
        return Ok(port);
    }
    let tcp = |name: &str| name.strip_suffix("/tcp").and_then(|p| p.parse::<u16>().ok());
    let published = container.network_settings.ports.iter().filter(|(_, places)| places.is_some());
    let published: Vec<u16> = published.filter_map(|(name, _)| tcp(name)).collect();
    let exposed: Vec<u16> = container.config.exposed_ports.keys().filter_map(|name| tcp(name)).collect();
    Ok(match (published.as_slice(), exposed.as_slice()) {
        (ports, _) | ([], ports) if ports.contains(&DEFAULT_PORT) => DEFAULT_PORT,
        ([only], _) | ([], [only]) => *only,
        _ => DEFAULT_PORT,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(json: &str, arguments: &[&str]) -> Result<String, String> {
        let arguments = Arguments::parse("vllm", arguments.iter().copied());
        of(&serde_json::from_str(json).unwrap(), &arguments)
    }

    #[test]
    fn addresses() {
        let bridge = r#"{"HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"IPAddress":"172.17.0.2","Ports":{}}}"#;
        let compose = r#"{"HostConfig":{"NetworkMode":"llm_default"},
            "NetworkSettings":{"IPAddress":"","Networks":{"llm_default":{"IPAddress":"172.20.0.3"}}}}"#;
        let published = r#"{"HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"IPAddress":"172.17.0.2",
            "Ports":{"8000/tcp":[{"HostIp":"0.0.0.0","HostPort":"18000"},{"HostIp":"::","HostPort":"18000"}]}}}"#;
        let one_address =
            r#"{"NetworkSettings":{"Ports":{"8000/tcp":[{"HostIp":"10.1.2.3","HostPort":"80"}]}}}"#;
        let other_port =
            r#"{"NetworkSettings":{"Ports":{"9000/tcp":[{"HostIp":"","HostPort":"19000"}],"1/udp":null}}}"#;
        let exposed =
            r#"{"Config":{"ExposedPorts":{"5000/tcp":{}}},"NetworkSettings":{"IPAddress":"172.17.0.9"}}"#;
        let labelled =
            r#"{"Config":{"Labels":{"picket.port":"7000"}},"NetworkSettings":{"IPAddress":"172.17.0.9"}}"#;
        let host = r#"{"HostConfig":{"NetworkMode":"host"}}"#;
        for (json, arguments, expected) in [
            (bridge, &["serve", "m"][..], "http://172.17.0.2:8000"),
            (bridge, &["--port", "8100"], "http://172.17.0.2:8100"),
            (compose, &[], "http://172.20.0.3:8000"),
            (published, &[], "http://127.0.0.1:18000"),
            // Another port than the published one is not reached by it.
            (published, &["--port", "8100"], "http://172.17.0.2:8100"),
            (one_address, &[], "http://10.1.2.3:80"),
            (other_port, &[], "http://127.0.0.1:19000"),
            (exposed, &[], "http://172.17.0.9:5000"),
            (labelled, &["--port", "8100"], "http://172.17.0.9:7000"),
            (host, &["--port", "8005", "--host", "0.0.0.0"], "http://127.0.0.1:8005"),
            (host, &["--host", "10.0.0.7"], "http://10.0.0.7:8000"),
            (host, &["--host", "::1", "--ssl-keyfile", "/k"], "https://[::1]:8000"),
        ] {
            assert_eq!(address(json, arguments).as_deref(), Ok(expected), "{json}");
        }
        for (json, why) in [
            (r#"{"HostConfig":{"NetworkMode":"none"}}"#, "no network"),
            (r#"{"HostConfig":{"NetworkMode":"container:ab"}}"#, "another container's network"),
            (r#"{"Config":{"Labels":{"picket.port":"http"}}}"#, "no port"),
            (r#"{"Config":{"Labels":{"picket.port":"0"}}}"#, "no port"),
            ("{}", "no address"),
        ] {
            let error = address(json, &[]).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
    }
}
