//! Whose the state folder is. Enrolment may be root's work where the agent's is not; what it writes goes to whom the folder
//! belongs to.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::str::FromStr;

use super::IdentityError;

/// A user and a group, by number: in a container the names mean nothing to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    user: u32,
    group: u32,
}

/// A text that names no owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no user and group: write their numbers, as 65532:65532")]
pub struct OwnerError(String);

impl Owner {
    /// Makes the folder where there is none, and makes it this owner's alone.
    ///
    /// # Errors
    /// The folder cannot be made or given away, which needs root or `CAP_CHOWN`.
    pub fn take(self, folder: &Path) -> Result<(), IdentityError> {
        let write = |source| IdentityError::Write { path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(write)?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(write)?;
        chown(folder, Some(self.user), Some(self.group)).map_err(write)
    }
}

impl FromStr for Owner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<Self, OwnerError> {
        let number = |part: &str| part.parse().map_err(|_| OwnerError(text.to_owned()));
        let (user, group) = text.split_once(':').ok_or_else(|| OwnerError(text.to_owned()))?;
        Ok(Self { user: number(user)?, group: number(group)? })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn two_numbers_and_nothing_else() {
        assert_eq!("65532:65533".parse(), Ok(Owner { user: 65532, group: 65533 }));
        for wrong in ["", "65532", "65532:", ":65532", "picket:picket", "-1:0", "1:2:3", "4294967296:0"] {
            assert_eq!(wrong.parse::<Owner>(), Err(OwnerError(wrong.to_owned())), "{wrong}");
        }
    }

    #[test]
    fn a_folder_is_made_and_closed_to_others() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        let me = std::fs::metadata(place.path()).unwrap();
        let owner = Owner { user: me.uid(), group: me.gid() };
        owner.take(&folder).unwrap();
        std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        owner.take(&folder).unwrap();
        let made = std::fs::metadata(&folder).unwrap();
        assert_eq!((made.uid(), made.mode() & 0o777), (me.uid(), 0o700));
    }
}
