//! A USB modem without hardware: a gadget of this kernel at a host controller of this kernel (`dummy_hcd`), which knows it for a modem.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::eventually::eventually;
use crate::netns::{Namespace, run};

/// Where gadgets are put together (`Documentation/usb/gadget_configfs.rst`).
const GADGETS: &str = "/sys/kernel/config/usb_gadget";

/// The gadget that every modem is: there is one port, and whoever holds it has the name.
const NAME: &str = "weir-modem";

/// The one function of the gadget: Ethernet by the class of the standard (CDC ECM).
const FUNCTION: &str = "ecm.modem0";

/// A modem of u-blox: `cdc_ether` knows it for one and calls its interface `wwan0`.
const ID: (&str, &str) = ("1546", "1143");

/// What the driver calls it.
const INTERFACE: &str = "wwan0";

/// Time for a driver to do its part.
const SOON: Duration = Duration::from_secs(10);

/// Time for a word from the gadget to the gateway's driver.
const A_WORD: Duration = Duration::from_millis(500);

/// The only port of the only virtual controller is for one test at a time.
static PORT: Mutex<()> = Mutex::new(());

/// Who has a driver make an interface holds this until it has been moved or removed.
static NAMES: Mutex<()> = Mutex::new(());

/// The driver that serves a modem at the gateway's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// `cdc_ether`: Ethernet frames.
    Ether,
    /// `qmi_wwan`: Ethernet frames, or raw IP when it is told so; the gadget understands the former alone.
    Qmi,
}

/// A modem, which is plugged in and pulled out; it is gone when this is dropped.
#[derive(Debug)]
pub struct Modem {
    gadget: PathBuf,
    driver: Driver,
    _port: MutexGuard<'static, ()>,
}

impl Modem {
    /// Puts one together, with these addresses at the gateway's end and at its own, in nobody's port yet.
    pub fn make(driver: Driver, near: &str, far: &str) -> Result<Self> {
        let port = PORT.lock().unwrap_or_else(PoisonError::into_inner);
        let gadget = Path::new(GADGETS).join(NAME);
        ensure!(
            Path::new(GADGETS).is_dir(),
            "there are no gadgets in {GADGETS}: is libcomposite there and configfs mounted?"
        );
        let modem = Self { gadget, driver, _port: port };
        // A process that was killed has left it.
        modem.take_apart();
        let (gadget, function, configuration) = (&modem.gadget, modem.function(), modem.configuration());
        create(gadget)?;
        put(&gadget.join("idVendor"), &format!("0x{}", ID.0))?;
        put(&gadget.join("idProduct"), &format!("0x{}", ID.1))?;
        create(&function)?;
        put(&function.join("host_addr"), near)?;
        put(&function.join("dev_addr"), far)?;
        create(&configuration)?;
        let link = configuration.join(FUNCTION);
        symlink(&function, &link).with_context(|| format!("link {}", link.display()))?;
        if driver == Driver::Qmi {
            put(Path::new("/sys/bus/usb/drivers/qmi_wwan/new_id"), &format!("{} {}", ID.0, ID.1))?;
        }
        Ok(modem)
    }

    /// Plugs it in. Its interface is in `near.0` then, called `near.1`; the other end's, which outlives being pulled out, is in
    /// `far.0`, called `far.1`.
    pub fn plug_in(&self, near: (&Namespace, &str), far: (&Namespace, &str)) -> Result<()> {
        let _names = hold_names();
        let ports = fs::read_dir("/sys/class/udc").context("list the ports: is dummy_hcd there?")?;
        let port = ports.flatten().next().context("there is no port: dummy_hcd makes one")?.file_name();
        put(&self.gadget.join("UDC"), &port.to_string_lossy())?;
        let is_there = || {
            ensure!(fs::exists(format!("/sys/class/net/{INTERFACE}"))?, "not yet");
            Ok(())
        };
        eventually("the modem's interface", SOON, is_there)?;
        let own = fs::read_to_string(self.function().join("ifname")).context("the name of the gadget's interface")?;
        // It is where everything is until somebody moves it.
        if fs::exists(format!("/sys/class/net/{}", own.trim()))? {
            hand_over(own.trim(), far)?;
        }
        hand_over(INTERFACE, near)
    }

    /// Waits until the gateway's end, which is up, has heard that the other is there. What a gadget says before anybody listens is lost,
    /// and then it has to say it again; its interface forgets its neighbours and routes with that.
    pub fn connect(&self, near: (&Namespace, &str), far: (&Namespace, &str)) -> Result<()> {
        let has_carrier = || {
            let state = near.0.ip(&format!("link show dev {}", near.1))?;
            ensure!(state.contains("LOWER_UP"), "{state}");
            Ok(())
        };
        eventually("the modem to have its network", SOON, || {
            eventually("a carrier", A_WORD, has_carrier).or_else(|error| {
                far.0.ip_batch(&format!("link set {} down\nlink set {} up\n", far.1, far.1))?;
                Err(error)
            })
        })
    }

    /// Pulls it out: the gateway's interface is gone.
    pub fn pull_out(&self) -> Result<()> {
        put(&self.gadget.join("UDC"), "\n")
    }

    fn function(&self) -> PathBuf {
        self.gadget.join("functions").join(FUNCTION)
    }

    fn configuration(&self) -> PathBuf {
        self.gadget.join("configs/c.1")
    }

    /// Everything in the opposite order; what is not there needs no removing.
    fn take_apart(&self) {
        let _ = self.pull_out();
        let configuration = self.configuration();
        let _ = fs::remove_file(configuration.join(FUNCTION));
        for directory in [configuration, self.function(), self.gadget.clone()] {
            let _ = fs::remove_dir(directory);
        }
    }
}

impl Drop for Modem {
    fn drop(&mut self) {
        self.take_apart();
        if self.driver == Driver::Qmi {
            let _ = put(Path::new("/sys/bus/usb/drivers/qmi_wwan/remove_id"), &format!("{} {}", ID.0, ID.1));
        }
    }
}

/// Has `qmi_wwan` speak raw IP over an interface of its own, which must be down, or Ethernet again: `Y` or `N`.
pub fn set_raw_ip(namespace: &Namespace, interface: &str, word: &str) -> Result<()> {
    // `ip netns exec` mounts the /sys of the namespace.
    let script = format!("echo {word} > /sys/class/net/{interface}/qmi/raw_ip");
    run("ip", &["netns", "exec", namespace.name(), "sh", "-c", &script], "").map(drop)
}

/// Keeps the names of this process's own namespace for one alone: drivers of modems call whatever they make there `wwan0`.
pub(crate) fn hold_names() -> MutexGuard<'static, ()> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves an interface out of this process's own namespace, under another name.
fn hand_over(interface: &str, (namespace, name): (&Namespace, &str)) -> Result<()> {
    run("ip", &["link", "set", interface, "netns", namespace.name(), "name", name], "").map(drop)
}

fn create(directory: &Path) -> Result<()> {
    fs::create_dir(directory).with_context(|| format!("make {}", directory.display()))
}

/// Writes a word to a file of the kernel's.
pub(crate) fn put(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("write {value} to {}", file.display()))
}
