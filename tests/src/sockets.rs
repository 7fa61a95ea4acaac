//! Socket options that no library spells.

use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};

/// Sets a socket option to the octets of `value`.
pub(crate) fn set_option<T>(socket: &impl AsRawFd, level: i32, option: i32, value: &T) -> Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value))?;
    // SAFETY: the kernel reads `length` octets from a live reference.
    let answer =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) };
    ensure!(answer == 0, "socket option {level}/{option}: {}", std::io::Error::last_os_error());
    Ok(())
}
