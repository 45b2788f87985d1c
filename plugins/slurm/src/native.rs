//! The controller's own metrics, which Slurm has since 25.11, passed on as they are.
//!
//! They share names with what this plugin counts (`slurm_jobs_pending`), so each series has the label `job` of its source.

use picket_sdk::exposition::{self, Options, Passthrough};
use picket_sdk::http::{self, Request};
use picket_sdk::{Collect, Failure};

use crate::settings::Settings;

/// The longest page: it is kept until the next is read.
const MAX_PAGE: usize = 4 << 20;

#[derive(Default)]
pub struct Native {
    pages: Vec<Page>,
    job: String,
}

struct Page {
    url: String,
    pass: Passthrough,
    body: Vec<u8>,
}

impl Native {
    pub fn configure(&mut self, settings: &Settings) {
        let base = settings.openmetrics_url.trim_end_matches('/');
        let wanted = settings.openmetrics_pages.iter().filter(|_| !base.is_empty());
        self.job.clone_from(&settings.openmetrics_job);
        self.pages = wanted
            .map(|name| Page {
                url: format!("{base}/metrics/{name}"),
                pass: Passthrough::new(Options::default()),
                body: Vec::new(),
            })
            .collect();
    }

    pub fn is_on(&self) -> bool {
        !self.pages.is_empty()
    }

    /// Reads all pages anew. One that can't be read is said; the others are there.
    ///
    /// # Errors
    /// None could be read.
    pub fn read(&mut self, c: &mut Collect<'_>) -> Result<(), Failure> {
        let mut last = None;
        let mut any = false;
        for page in &mut self.pages {
            page.body.clear();
            match fetch(&page.url) {
                Ok(body) => {
                    page.body = body;
                    any = true;
                }
                Err(failure) => {
                    if let Some(earlier) = last.replace(failure) {
                        c.failed(earlier);
                    }
                }
            }
        }
        match last {
            Some(failure) if !any => Err(failure),
            Some(failure) => {
                c.failed(failure);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Passes on what was read last.
    pub fn emit(&mut self, c: &mut Collect<'_>) {
        for page in self.pages.iter_mut().filter(|p| !p.body.is_empty()) {
            if let Err(failure) = page.pass.page(c, &page.body, &[("job", self.job.as_str())]) {
                c.failed(failure);
            }
        }
    }

    /// What was read is too old to be told.
    pub fn forget(&mut self) {
        for page in &mut self.pages {
            page.body = Vec::new();
        }
    }
}

fn fetch(url: &str) -> Result<Vec<u8>, Failure> {
    let answer = http::send(&Request::get(url).header("Accept", exposition::ACCEPT))?;
    if answer.status == 404 {
        let why = format!(
            "{url}: the controller has no metrics: it wants Slurm 25.11 and MetricsType=metrics/openmetrics"
        );
        return Err(Failure::new("status", why));
    }
    let body = answer.success()?;
    if body.len() > MAX_PAGE {
        return Err(Failure::new("too-large", format!("{url}: the page is longer than {MAX_PAGE} bytes")));
    }
    Ok(answer.body)
}
