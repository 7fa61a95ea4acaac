//! The unix socket: for whoever may open it, owner and group.

use std::os::unix::fs::{FileTypeExt, MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::{Group, chown};
use tokio::net::UnixListener;

use super::{Desk, routes};

/// Whose members may use the socket.
const GROUP: &str = "weir";

/// A socket that is being served; its file goes with it.
#[derive(Debug)]
pub struct Served(PathBuf);

impl Drop for Served {
    fn drop(&mut self) {
        // It may have been removed already; there is nobody left to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Serves the API on a unix socket, readable by owner and group.
pub fn serve(socket: &Path, desk: Desk) -> Result<Served> {
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("making {} for the socket", directory.display()))?;
    }
    remove_stale(socket)?;
    let listener = UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660))
        .with_context(|| format!("setting the mode of {}", socket.display()))?;
    give_to_group(socket);
    let router = routes::api(desk);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("the status socket has ended: {error}");
        }
    });
    Ok(Served(socket.to_owned()))
}

/// Members of the group `weir`, where there is one, may ask without being root. Where it may not be given away it stays as it is.
fn give_to_group(socket: &Path) {
    let Ok(Some(group)) = Group::from_name(GROUP) else { return };
    // A service of that group made it so, and may be forbidden to give anything away.
    if std::fs::metadata(socket).is_ok_and(|metadata| metadata.gid() == group.gid.as_raw()) {
        return;
    }
    if let Err(error) = chown(socket, None, Some(group.gid)) {
        tracing::warn!("{} cannot be given to the group {GROUP}: {error}", socket.display());
    }
}

/// A socket file that nobody listens on is left over from a crash; one that answers belongs to another agent.
fn remove_stale(socket: &Path) -> Result<()> {
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => bail!("another agent is running: {} answers", socket.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(_) if !is_socket(socket) => {
            bail!("{} is there and is no socket: name another agent.socket", socket.display())
        }
        Err(_) => std::fs::remove_file(socket).with_context(|| format!("removing the left-over {}", socket.display())),
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("weir.sock");
        std::fs::write(&path, "precious").expect("written");
        let error = remove_stale(&path).expect_err("refused").to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[test]
    fn a_socket_that_a_crash_left_makes_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("weir.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        remove_stale(&path).expect("removed");
        assert!(!path.exists());
    }
}
