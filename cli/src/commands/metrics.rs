//! `picket metrics`: the exposition, unchanged, piece by piece.

use std::io::Write as _;

use crate::Error;
use crate::api::Client;

pub async fn print(client: &Client, own: bool, selectors: &[String]) -> Result<(), Error> {
    let path = if own { "/metrics/self" } else { "/metrics" };
    let query: Vec<(&str, String)> = selectors.iter().map(|selector| ("match", selector.clone())).collect();
    let mut response = client.stream(path, &query).await?;
    let mut out = std::io::stdout().lock();
    while let Some(piece) = response.chunk().await.map_err(|error| client.broken(&error))? {
        out.write_all(&piece)?;
    }
    Ok(out.flush()?)
}
