//! Another machine: a network namespace with a link to this one; gone when dropped.

use std::process::Command;

/// A machine on a link with this one.
#[derive(Debug)]
pub(crate) struct Machine {
    name: String,
    link: String,
}

impl Machine {
    /// `short` (three letters) tells the links of tests apart. This side has the address `here`, the
    /// machine `there`, each with its prefix (`172.31.214.1/30`).
    pub(crate) fn new(short: &str, here: &str, there: &str) -> Self {
        let id = std::process::id();
        let machine = Self {
            name: format!("evenkeel-{short}-{id}"),
            link: format!("{short}{id}"),
        };
        let (name, link) = (machine.name.as_str(), machine.link.as_str());
        let far = format!("{link}b");
        ip(&["netns", "add", name]);
        ip(&[
            "link", "add", link, "type", "veth", "peer", "name", &far, "netns", name,
        ]);
        ip(&["address", "add", here, "dev", link]);
        ip(&["link", "set", link, "up"]);
        machine.ip(&["link", "set", "lo", "up"]);
        machine.ip(&["address", "add", there, "dev", &far]);
        machine.ip(&["link", "set", &far, "up"]);
        machine
    }

    /// The link's end on this side.
    pub(crate) fn link(&self) -> &str {
        &self.link
    }

    /// `ip` on the machine.
    ///
    /// # Panics
    /// When it fails, here and in [`ip`].
    pub(crate) fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", self.name.as_str()], arguments].concat());
    }

    /// A command on the machine; unlike with `ip netns exec`, all mounts stay.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg(program);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for arguments in [
            ["link", "delete", &self.link],
            ["netns", "delete", &self.name],
        ] {
            match Command::new("ip").args(arguments).output() {
                Ok(output) if output.status.success() => {}
                other => eprintln!("ip {arguments:?}: {other:?}"),
            }
        }
    }
}

/// `ip` on this side.
pub(crate) fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("ip runs");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
