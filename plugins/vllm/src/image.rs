//! What the name of an image says.

/// The tag, where there is one that names a version: `registry:5000/vllm/vllm-openai:v0.12.0@sha256:…` → `v0.12.0`.
/// An image by its digest alone, without a tag, or `latest`, says nothing.
pub fn version(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    // A colon before the last slash is the registry's port.
    let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
    match last.split_once(':') {
        Some(("sha256", _)) | None => "",
        Some((_, "latest")) => "",
        Some((_, tag)) => tag,
    }
}

/// The name without the registry that Docker leaves out and Podman writes.
pub fn familiar(image: &str) -> &str {
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    image.strip_prefix("library/").unwrap_or(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (image, expected) in [
            ("vllm/vllm-openai:v0.12.0", "v0.12.0"),
            ("vllm/vllm-openai", ""),
            ("vllm/vllm-openai:latest", ""),
            ("registry:5000/vllm/vllm-openai", ""),
            ("registry:5000/vllm/vllm-openai:v0.12.0", "v0.12.0"),
            (
                "registry.example:5000/a/b:v1-cu128@sha256:0fec7ec5f3e6bc168e54899935fb0557da908a48",
                "v1-cu128",
            ),
            ("vllm/vllm-openai@sha256:0fec7ec5f3e6bc168e54899935fb0557da908a4832a1dbc88e2debcf2f889416", ""),
            ("sha256:0fec7ec5f3e6", ""),
            ("0fec7ec5f3e6", ""),
            ("localhost:5000/vllm", ""),
            ("vllm:v1", "v1"),
            ("", ""),
        ] {
            assert_eq!(version(image), expected, "{image}");
        }
        assert_eq!(familiar("docker.io/library/vllm:1"), "vllm:1");
        assert_eq!(familiar("ghcr.io/x/y"), "ghcr.io/x/y");
    }
}
