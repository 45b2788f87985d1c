//! What a server's command line says of it.

/// The parts of `vllm serve MODEL …` (or `python -m vllm.entrypoints.openai.api_server --model MODEL …`) that matter
/// from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    pub model: String,
    pub served_name: String,
    pub port: Option<u16>,
    pub host: String,
    pub https: bool,
}

impl Arguments {
    pub fn parse<'a>(program: &'a str, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        let words: Vec<&str> =
            std::iter::once(program).chain(arguments).flat_map(str::split_whitespace).collect();
        let mut words = words.into_iter().peekable();
        let mut serve = false;
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else {
                // The first word after `serve` that is no option is the model.
                if serve && found.model.is_empty() && !word.starts_with('-') {
                    found.model = word.to_owned();
                }
                serve |= word == "serve";
                continue;
            };
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (name, None),
            };
            let mut value = || value.or_else(|| words.next_if(|w| !w.starts_with("--"))).unwrap_or_default();
            match name.replace('_', "-").as_str() {
                "model" => found.model = value().to_owned(),
                "served-model-name" => found.served_name = value().to_owned(),
                "port" => found.port = value().parse().ok(),
                "host" => found.host = value().to_owned(),
                "ssl-certfile" | "ssl-keyfile" => {
                    value();
                    found.https = true;
                }
                _ => {}
            }
        }
        found
    }

    /// What the server will most likely call its model.
    pub fn model_name(&self) -> &str {
        if self.served_name.is_empty() { &self.model } else { &self.served_name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let check = |words: &[&str], model: &str, name: &str, port: Option<u16>| {
            let (program, rest) = words.split_first().unwrap();
            let found = Arguments::parse(program, rest.iter().copied());
            assert_eq!(
                (found.model.as_str(), found.model_name(), found.port),
                (model, name, port),
                "{words:?}"
            );
        };
        // The image's entry point is `vllm serve`.
        check(
            &["vllm", "serve", "meta-llama/Llama-3.1-8B", "--port", "8001"],
            "meta-llama/Llama-3.1-8B",
            "meta-llama/Llama-3.1-8B",
            Some(8001),
        );
        check(
            &["vllm", "serve", "--port=9000", "Qwen/Qwen3-8B"],
            "Qwen/Qwen3-8B",
            "Qwen/Qwen3-8B",
            Some(9000),
        );
        check(
            &[
                "python3",
                "-m",
                "vllm.entrypoints.openai.api_server",
                "--model",
                "a/b",
                "--served-model-name",
                "chat",
            ],
            "a/b",
            "chat",
            None,
        );
        check(&["/bin/sh", "-c", "vllm serve a/b --port 8100 --host 0.0.0.0"], "a/b", "a/b", Some(8100));
        check(&["vllm", "serve", "a/b", "--port", "none"], "a/b", "a/b", None);
        check(&["vllm", "serve", "a/b", "--port"], "a/b", "a/b", None);
        check(&["vllm", "serve", "a/b", "--port", "--trust-remote-code"], "a/b", "a/b", None);
        check(&["nginx"], "", "", None);
        let https =
            Arguments::parse("vllm", ["serve", "m", "--ssl-certfile", "/c.pem", "--host", "10.0.0.1"]);
        assert!(https.https && https.host == "10.0.0.1");
    }
}
