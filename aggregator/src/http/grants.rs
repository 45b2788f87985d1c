//! `GET /api/v1/grants`: who may do what, on the whole fleet: each plugin of each node with what it needs, why, and what the
//! node's operator grants it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use super::App;
use super::body::{Params, node_id};
use super::error::ApiError;
use crate::ingest::PluginGrants;

#[derive(Serialize)]
struct Line<'a> {
    node: &'a str,
    /// Else this is what the node said last.
    connected: bool,
    plugin: &'a str,
    version: &'a str,
    digest: &'a str,
    signed_by: &'a str,
    state: &'a str,
    needs: &'a RawValue,
    grants: &'a RawValue,
}

#[derive(Serialize)]
struct Document<'a> {
    grants: Vec<Line<'a>>,
    /// The last node of a page that is not the last one.
    next_after: Option<&'a str>,
}

/// `GET /api/v1/grants[?node=NAME&plugin=ID&after=NODE&limit=N]`, in order of node; `limit` counts nodes.
pub async fn list(State(app): State<Arc<App>>, mut params: Params) -> Result<Response, ApiError> {
    let node = params.one("node")?.map(|name| node_id(&name)).transpose()?;
    let plugin = params.one("plugin")?;
    let after = params.one("after")?;
    let limit = params.limit(1000, 10_000)? as usize;
    params.done()?;
    let mut all = app.ingest.grants(node.as_ref());
    all.retain(|(id, _, _)| after.as_deref().is_none_or(|after| id.as_str() > after));
    let more = all.len() > limit;
    all.truncate(limit);
    let wanted = |grants: &&PluginGrants| plugin.as_ref().is_none_or(|plugin| grants.plugin == *plugin);
    let mut lines = Vec::new();
    for (id, connected, plugins) in &all {
        for p in plugins.iter().filter(wanted) {
            // Checked when they came.
            let (Ok(needs), Ok(grants)) = (raw(&p.needs), raw(&p.grants)) else { continue };
            lines.push(Line {
                node: id.as_str(),
                connected: *connected,
                plugin: &p.plugin,
                version: &p.version,
                digest: &p.digest,
                signed_by: &p.signed_by,
                state: &p.state,
                needs,
                grants,
            });
        }
    }
    let next_after = all.last().filter(|_| more).map(|(id, _, _)| id.as_str());
    Ok(Json(Document { grants: lines, next_after }).into_response())
}

fn raw(text: &str) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_str(text)
}
