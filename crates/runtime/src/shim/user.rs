//! USER of an image to numbers, by the image's own /etc/passwd and /etc/group.
//!
//! Runs inside the container's root, so that links in the image lead nowhere else. The files are
//! the image author's: read with a bound, and a line that makes no sense is skipped.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use super::spec::UserSpec;
use crate::wire::{Failure, User};

/// No sensible account file is larger.
const MAX_BYTES: u64 = 4 << 20;

/// Resolves within the current root directory.
pub(super) fn resolve(spec: &UserSpec) -> Result<User, Failure> {
    resolve_with(spec, &read("/etc/passwd"), &read("/etc/group"))
}

fn read(path: &str) -> String {
    // O_NONBLOCK: an image may have put a FIFO there.
    let Ok(file) = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
    else {
        return String::new();
    };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    match file.take(MAX_BYTES).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// The largest number of a user or a group, as other runtimes have it. What is beyond is more than
/// odd: the kernel takes the last one, 4294967295, for "leave it as it is", which is root.
const LAST_ID: u32 = 0x7fff_ffff;

/// A number of a user or a group.
fn id(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| plain && *id <= LAST_ID)
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        Some(Account {
            name: fields.first()?,
            uid: id(fields.get(2)?)?,
            gid: id(fields.get(3)?)?,
            home: fields.get(5).copied().unwrap_or(""),
        })
    })
}

/// Name, id and members of each group.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = id(fields.nth(1)?)?;
        Some((name, id, fields.next().unwrap_or("")))
    })
}

pub(crate) fn resolve_with(spec: &UserSpec, passwd: &str, group: &str) -> Result<User, Failure> {
    let (image_user, image_group) = match spec.image.split_once(':') {
        Some((user, group)) => (user, group),
        None => (spec.image.as_str(), ""),
    };
    let account = match spec.uid {
        Some(uid) => accounts(passwd).find(|account| account.uid == uid),
        None => match id(image_user) {
            Some(uid) => accounts(passwd).find(|account| account.uid == uid),
            None => {
                let name = if image_user.is_empty() {
                    "root"
                } else {
                    image_user
                };
                accounts(passwd).find(|account| account.name == name)
            }
        },
    };
    let uid = match (spec.uid, &account) {
        (Some(uid), _) => uid,
        (None, Some(account)) => account.uid,
        (None, None) if image_user.is_empty() => 0,
        (None, None) => id(image_user).ok_or_else(|| {
            Failure::cannot_run(format!(
                "unable to find user {image_user}: no matching entries in passwd file"
            ))
        })?,
    };
    let mut given = spec.uid.iter().chain(&spec.gid).chain(&spec.groups);
    if given.any(|id| *id > LAST_ID) {
        return Err(Failure::cannot_run(format!(
            "uids and gids must be in range 0-{LAST_ID}"
        )));
    }
    if spec.non_root && uid == 0 {
        return Err(Failure::cannot_run(
            "container has runAsNonRoot and image will run as root",
        ));
    }
    // The image's group belongs to the image's user; another user does not inherit it.
    let named_group = (spec.uid.is_none() && !image_group.is_empty()).then_some(image_group);
    let gid = match (spec.gid, named_group) {
        (Some(gid), _) => gid,
        (None, Some(wanted)) => groups(group)
            .find(|(name, _, _)| *name == wanted)
            .map(|(_, id, _)| id)
            .or_else(|| id(wanted))
            .ok_or_else(|| {
                Failure::cannot_run(format!(
                    "unable to find group {wanted}: no matching entries in group file"
                ))
            })?,
        (None, None) => account.as_ref().map_or(0, |account| account.gid),
    };
    let mut supplementary = vec![gid];
    supplementary.extend(&spec.groups);
    if let Some(account) = account.as_ref().filter(|_| !spec.strict_groups) {
        for (_, id, members) in groups(group) {
            if members.split(',').any(|member| member == account.name) {
                supplementary.push(id);
            }
        }
    }
    let mut seen = Vec::new();
    supplementary.retain(|id| {
        let fresh = !seen.contains(id);
        seen.push(*id);
        fresh
    });
    let home = account
        .map(|account| account.home)
        .filter(|home| !home.is_empty())
        .unwrap_or("/");
    Ok(User {
        uid,
        gid,
        groups: supplementary,
        home: home.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nredis:x:999:998::/data:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nredis:x:998:\nvideo:x:44:redis,other\n";

    fn image(user: &str) -> UserSpec {
        UserSpec {
            image: user.to_owned(),
            ..UserSpec::default()
        }
    }

    fn ids(spec: &UserSpec) -> (u32, u32, Vec<u32>, String) {
        let user = resolve_with(spec, PASSWD, GROUP).expect("resolves");
        (user.uid, user.gid, user.groups, user.home)
    }

    #[test]
    fn names_and_numbers_of_the_image() {
        assert_eq!(ids(&image("")), (0, 0, vec![0], "/root".to_owned()));
        assert_eq!(
            ids(&image("redis")),
            (999, 998, vec![998, 44], "/data".to_owned())
        );
        assert_eq!(
            ids(&image("999")),
            (999, 998, vec![998, 44], "/data".to_owned())
        );
        assert_eq!(
            ids(&image("redis:video")),
            (999, 44, vec![44], "/data".to_owned())
        );
        assert_eq!(ids(&image("12:34")), (12, 34, vec![34], "/".to_owned()));
        assert_eq!(ids(&image("12")), (12, 0, vec![0], "/".to_owned()));
    }

    #[test]
    fn numbers_that_would_leave_root_in_place_are_none() {
        const PASSWD: &str = "a:x:4294967295:4294967295::/:\n";
        const GROUP: &str = "g:x:4294967295:\nh:x:4294967295:redis\n";
        for user in [
            "4294967295",
            "2147483648",
            "a",
            "1:4294967295",
            "1:g",
            "-1",
            "+1",
        ] {
            let spec = UserSpec {
                non_root: true,
                ..image(user)
            };
            let resolved = resolve_with(&spec, PASSWD, GROUP);
            assert!(resolved.is_err(), "{user}: {resolved:?}");
        }
        let last = UserSpec {
            uid: Some(LAST_ID),
            ..image("")
        };
        assert_eq!(ids(&last).0, LAST_ID);
        let beyond = UserSpec {
            uid: Some(u32::MAX),
            ..last
        };
        let refused = resolve_with(&beyond, PASSWD, GROUP).expect_err("beyond");
        assert!(refused.message.contains("0-2147483647"));
    }

    #[test]
    fn the_pod_wins_over_the_image() {
        let spec = UserSpec {
            uid: Some(1000),
            groups: vec![2000, 0],
            ..image("redis:video")
        };
        assert_eq!(ids(&spec), (1000, 0, vec![0, 2000], "/".to_owned()));
    }

    #[test]
    fn unknown_names_and_root_are_refused_where_asked() {
        let missing = resolve_with(&image("nobody-here"), PASSWD, GROUP).expect_err("unknown");
        assert!(
            missing
                .message
                .contains("no matching entries in passwd file")
        );
        let spec = UserSpec {
            non_root: true,
            ..image("")
        };
        assert!(resolve_with(&spec, PASSWD, GROUP).is_err());
    }
}
