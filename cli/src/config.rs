//! Which aggregator, by which token, trusting which CA: arguments, then the environment (both by clap), then
//! `$XDG_CONFIG_HOME/picket/cli.toml` or `~/.config/picket/cli.toml`. The only module that reads the environment.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::arguments::ConnectionArguments;

const DEFAULT_URL: &str = "https://localhost:9471";

/// A connection to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Without a slash at its end.
    pub url: String,
    pub token: String,
    /// The CA to trust, PEM, and where it came from; `None`: the system's.
    pub ca: Option<(PathBuf, Vec<u8>)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    url: Option<String>,
    token: Option<String>,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {what} {}: {source}", path.display())]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {message} (known are url, token, token_file, ca)", path.display())]
    File { path: PathBuf, message: String },
    #[error("{url:?} is no address: write https://host:port")]
    Url { url: String },
    #[error(
        "no API token: pass --token or --token-file, set PICKET_TOKEN, or write `token_file = \"…\"` into {}. \
         The first one is admin.token in the aggregator's state folder.",
        place.display()
    )]
    NoToken { place: PathBuf },
}

impl Connection {
    /// Puts arguments and the config file together.
    pub fn resolve(arguments: &ConnectionArguments) -> Result<Self, ConfigError> {
        Self::resolve_with(arguments, &config_path())
    }

    fn resolve_with(arguments: &ConnectionArguments, path: &Path) -> Result<Self, ConfigError> {
        let file = match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| ConfigError::File {
                path: path.to_owned(),
                message: error.message().to_owned(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::default(),
            Err(source) => {
                return Err(ConfigError::Read { what: "the configuration", path: path.to_owned(), source });
            }
        };
        let url = arguments.url.clone().or(file.url).unwrap_or_else(|| DEFAULT_URL.to_owned());
        let url = url.trim_end_matches('/').to_owned();
        if !(url.starts_with("https://") || url.starts_with("http://")) {
            return Err(ConfigError::Url { url });
        }
        let nearest =
            [(arguments.token.clone(), arguments.token_file.clone()), (file.token, file.token_file)]
                .into_iter()
                .find(|(token, token_file)| token.is_some() || token_file.is_some());
        let token = match nearest {
            Some((Some(token), _)) => token,
            Some((None, Some(token_file))) => {
                String::from_utf8_lossy(&read("the token", &token_file)?).into_owned()
            }
            _ => return Err(ConfigError::NoToken { place: path.to_owned() }),
        };
        let ca = arguments
            .ca
            .clone()
            .or(file.ca)
            .map(|path| read("the CA", &path).map(|pem| (path, pem)))
            .transpose()?;
        Ok(Self { url, token: token.trim().to_owned(), ca })
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Read { what, path: path.to_owned(), source })
}

#[allow(clippy::disallowed_methods)]
fn config_path() -> PathBuf {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CONFIG_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".config")))
        .unwrap_or_else(|| PathBuf::from("/etc"))
        .join("picket/cli.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_go_over_the_file() {
        let dir = std::env::temp_dir().join(format!("picket-cli-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (file, token) = (dir.join("cli.toml"), dir.join("token"));
        std::fs::write(&token, "from-file\n").unwrap();
        std::fs::write(&file, format!("url = 'https://a:1/'\ntoken_file = '{}'", token.display())).unwrap();
        let mut arguments = ConnectionArguments::default();
        let of_file = Connection::resolve_with(&arguments, &file).unwrap();
        assert_eq!((of_file.url.as_str(), of_file.token.as_str()), ("https://a:1", "from-file"));
        arguments.url = Some("http://b:2".into());
        arguments.token = Some("argument".into());
        let of_arguments = Connection::resolve_with(&arguments, &file).unwrap();
        assert_eq!((of_arguments.url.as_str(), of_arguments.token.as_str()), ("http://b:2", "argument"));
        arguments.url = Some("b:2".into());
        assert!(matches!(Connection::resolve_with(&arguments, &file), Err(ConfigError::Url { .. })));
        std::fs::write(&file, "tokn = 'x'").unwrap();
        let error = Connection::resolve_with(&arguments, &file).unwrap_err().to_string();
        assert!(error.contains("tokn"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn without_a_token_it_says_where_to_get_one() {
        let nowhere = Path::new("/no/such/file.toml");
        let error =
            Connection::resolve_with(&ConnectionArguments::default(), nowhere).unwrap_err().to_string();
        assert!(error.contains("PICKET_TOKEN") && error.contains("admin.token"), "{error}");
    }
}
