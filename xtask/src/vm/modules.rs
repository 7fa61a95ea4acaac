//! Which modules a kernel needs for what a test uses, and in which order they load.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use super::kernels::Ready;

/// A module, ready to be loaded.
pub(crate) struct Module {
    /// Its name, with underscores.
    pub(crate) name: String,
    /// The object.
    pub(crate) content: Vec<u8>,
}

/// The modules of one kernel, by name.
struct Tree {
    files: BTreeMap<String, PathBuf>,
    builtin: String,
}

/// The wanted modules with all that they stand on, each after what it needs. What is built into the kernel is left out.
pub(crate) fn in_order(kernel: &Ready, wanted: &[&str]) -> anyhow::Result<Vec<Module>> {
    let tree = &kernel.modules;
    let mut found = Tree {
        files: BTreeMap::new(),
        builtin: fs::read_to_string(tree.join("modules.builtin"))
            .with_context(|| format!("read what is built into the kernel of {}", tree.display()))?,
    };
    collect(&tree.join("kernel"), &mut found.files)?;
    kernel.built.iter().try_for_each(|directory| collect(directory, &mut found.files))?;
    let mut loaded = Vec::new();
    for name in wanted {
        found.add(name, &mut loaded)?;
    }
    Ok(loaded)
}

impl Tree {
    fn add(&self, name: &str, loaded: &mut Vec<Module>) -> anyhow::Result<()> {
        if loaded.iter().any(|module| module.name == name) || self.is_builtin(name) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else { bail!("this kernel has no module {name}") };
        let content = unpacked(path)?;
        for needed in depends(&content).with_context(|| format!("{} names nothing that it needs", path.display()))? {
            self.add(&needed, loaded)?;
        }
        loaded.push(Module { name: name.to_owned(), content });
        Ok(())
    }

    fn is_builtin(&self, name: &str) -> bool {
        self.builtin.lines().any(|line| module_name(Path::new(line)).is_some_and(|builtin| builtin == name))
    }
}

fn collect(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `kernel/drivers/net/dummy-hcd.ko.xz` is the module `dummy_hcd`.
fn module_name(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn unpacked(path: &Path) -> anyhow::Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return fs::read(path).with_context(|| format!("read {}", path.display())),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{} is packed in a way that is not known here", path.display()),
    };
    let mut command = Command::new(program);
    command.args(["--decompress", "--stdout", "--quiet"]).arg(path).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("run {program} to unpack {}", path.display()))?;
    ensure!(output.status.success(), "{program} could not unpack {}: {}", path.display(), output.status);
    Ok(output.stdout)
}

/// What a module says that it needs: `depends=` among the words that `modinfo` shows, each of which ends with a zero octet.
fn depends(module: &[u8]) -> Option<Vec<String>> {
    const KEY: &[u8] = b"\0depends=";
    let at = module.windows(KEY.len()).position(|octets| octets == KEY)? + KEY.len();
    let value = module[at..].split(|octet| *octet == 0).next()?;
    let names = String::from_utf8_lossy(value);
    Some(names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_read_from_its_words() {
        let words = |text: &str| depends(format!("\u{7f}ELF\0license=GPL\0depends={text}\0name=x\0").as_bytes());
        assert_eq!(words(""), Some(vec![]));
        assert_eq!(words("usbcore,udc-core"), Some(vec!["usbcore".to_owned(), "udc_core".to_owned()]));
        assert_eq!(depends(b"\0license=GPL\0"), None);
    }

    #[test]
    fn a_module_is_known_by_one_name_however_it_is_packed() {
        for path in ["kernel/usb/dummy-hcd.ko", "dummy_hcd.ko.xz", "/a/dummy_hcd.ko.zst"] {
            assert_eq!(module_name(Path::new(path)).as_deref(), Some("dummy_hcd"), "{path}");
        }
        assert_eq!(module_name(Path::new("modules.builtin")), None);
    }
}
