use super::action::picket::host::files_write as wit;
use crate::files_write::{End, FilesWriteError, Found, Rule, Search};

pub(crate) fn files_find(rule: &Rule) -> Result<Search, FilesWriteError> {
    let rule = wit::Rule {
        pattern: rule.pattern.clone(),
        older_than: rule.older_than,
        at_least: rule.at_least,
        most: rule.most,
    };
    let found = wit::find(&rule).map_err(error)?;
    let files = found.files.into_iter().map(|f| Found {
        path: f.path,
        bytes: f.bytes,
        modified: f.modified,
        inode: f.inode,
        device: f.device,
    });
    Ok(Search { files: files.collect(), more: found.more })
}

pub(crate) fn files_delete(found: &Found) -> Result<End, FilesWriteError> {
    let found = wit::Found {
        path: found.path.clone(),
        bytes: found.bytes,
        modified: found.modified,
        inode: found.inode,
        device: found.device,
    };
    match wit::delete(&found) {
        Ok(wit::End::Gone) => Ok(End::Gone),
        Ok(wit::End::Deleted | wit::End::Other(_)) => Ok(End::Deleted),
        Err(e) => Err(error(e)),
    }
}

pub(crate) fn files_put(
    bundle: &str,
    file: &str,
    content: &[u8],
    first: bool,
) -> Result<String, FilesWriteError> {
    wit::put(bundle, file, content, first).map_err(error)
}

fn error(error: wit::FilesWriteError) -> FilesWriteError {
    use wit::FilesWriteError as E;
    match error {
        E::Denied(text) => FilesWriteError::Denied(text),
        E::NotFound(text) => FilesWriteError::NotFound(text),
        E::Invalid(text) => FilesWriteError::Invalid(text),
        E::Changed(text) => FilesWriteError::Changed(text),
        E::TooLarge(text) => FilesWriteError::TooLarge(text),
        E::TimedOut(text) => FilesWriteError::TimedOut(text),
        E::Io(text) => FilesWriteError::Io(text),
        E::Other(text) => FilesWriteError::Other(text),
    }
}
