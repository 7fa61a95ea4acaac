//! The device's Ed25519 key: made once, kept in a file that only its owner can read.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// A key file is a few lines; more is not read.
const FILE_MAX: u64 = 64 << 10;

/// Signs what the device says.
pub struct DeviceKey {
    pair: Ed25519KeyPair,
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({})", self.public_x())
    }
}

impl DeviceKey {
    /// The key in the file; made, with the file, when there is none.
    pub fn load_or_create(path: &Path) -> Result<Self> {
        if let Some(key) = Self::load_if_there(path)? {
            return Ok(key);
        }
        create(path).with_context(|| format!("making the device key {}", path.display()))?;
        Self::load_if_there(path)?.with_context(|| format!("the device key {} went away", path.display()))
    }

    /// The key in the file; `None` when there is none yet. Nothing is made.
    pub fn load_if_there(path: &Path) -> Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Self::load(file, path).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("opening the device key {}", path.display())),
        }
    }

    /// The public key as JWK member `x`: base64url without padding (RFC 8037).
    #[must_use]
    pub fn public_x(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.public_key())
    }

    /// A JWT of these claims, signed with `EdDSA` (RFC 8037 section 3.1).
    #[must_use]
    pub fn jwt(&self, claims: &[u8]) -> String {
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"JWT"}"#);
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn load(file: File, path: &Path) -> Result<Self> {
        let shown = path.display();
        let metadata = file.metadata().with_context(|| format!("looking at the device key {shown}"))?;
        if !metadata.is_file() {
            bail!("the device key {shown} is not a file");
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            bail!("the device key {shown} can be reached by others (mode {mode:04o}): chmod 600 {shown}");
        }
        let mut pem = String::new();
        file.take(FILE_MAX).read_to_string(&mut pem).with_context(|| format!("reading the device key {shown}"))?;
        let pair =
            parse(&pem).with_context(|| format!("the device key {shown} is not an Ed25519 key in PKCS#8 PEM"))?;
        Ok(Self { pair })
    }
}

fn parse(pem: &str) -> Result<Ed25519KeyPair> {
    let (_, rest) = pem.split_once(BEGIN).with_context(|| format!("no line {BEGIN:?}"))?;
    let (encoded, _) = rest.split_once(END).with_context(|| format!("no line {END:?}"))?;
    let encoded: String = encoded.split_whitespace().collect();
    let der = STANDARD.decode(encoded).context("what is between them is not base64")?;
    // Other tools leave the public key out (PKCS#8 version 1): that is fine, it is worked out.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|error| anyhow!("{error}"))
}

/// Makes a key. The file appears whole or not at all, and an existing one is never written over.
fn create(path: &Path) -> Result<()> {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| anyhow!("no randomness"))?;
    let encoded = STANDARD.encode(key.as_ref());
    let mut pem = format!("{BEGIN}\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str(END);
    pem.push('\n');

    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).context("making its directory")?;
    let unfinished = unfinished(path);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context("removing an unfinished key"),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&unfinished, path);
    std::fs::remove_file(&unfinished)?;
    match linked {
        // Another agent was faster: its key is the device's.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error).context("naming the key file"),
        Ok(()) | Err(_) => {}
    }
    File::open(directory)?.sync_all().context("syncing its directory")
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/device.pem");
        assert!(DeviceKey::load_if_there(&path).unwrap().is_none() && !dir.path().join("state").exists());
        let made = DeviceKey::load_or_create(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(DeviceKey::load_or_create(&path).unwrap().public_x(), made.public_x());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn two_devices_have_two_keys() {
        let dir = tempfile::tempdir().unwrap();
        let key = |name| DeviceKey::load_or_create(&dir.path().join(name)).unwrap().public_x();
        assert_ne!(key("a.pem"), key("b.pem"));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.pem");
        DeviceKey::load_or_create(&path).unwrap();
        for open in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, Permissions::from_mode(open)).unwrap();
            let told = format!("{:#}", DeviceKey::load_or_create(&path).unwrap_err());
            assert!(told.contains(&format!("chmod 600 {}", path.display())), "{told}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(DeviceKey::load_or_create(&path).is_ok());
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.pem");
        for content in ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let told = format!("{:#}", DeviceKey::load_or_create(&path).unwrap_err());
            assert!(told.contains("is not an Ed25519 key"), "{told}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn an_unfinished_key_of_an_earlier_start_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.pem");
        fs::write(unfinished(&path), "half").unwrap();
        assert!(DeviceKey::load_or_create(&path).is_ok());
        assert!(!unfinished(&path).exists());
    }
}
