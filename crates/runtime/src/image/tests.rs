//! Importing, unpacking and collecting, against a store in a temporary directory. Needs root, as
//! layers have owners and device nodes.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use super::*;
use crate::testing::{Compression, Entry, ImageBuilder};

struct Fixture {
    dir: tempfile::TempDir,
    store: ImageStore,
}

impl Fixture {
    fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "unpacking layers needs root; run as root"
        );
        let dir = tempfile::tempdir().expect("a directory");
        let store =
            ImageStore::open(dir.path().join("images"), ImageOptions::default()).expect("opens");
        Self { dir, store }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("image.tar")
    }

    async fn import(&self, layers: Vec<Vec<Entry>>, name: &str) -> Result<ImageStatus> {
        builder(layers)
            .docker_archive(name, &self.file())
            .expect("an archive");
        Ok(self.store.import(&self.file(), None).await?.remove(0))
    }

    /// Directories of an image's layers, the topmost first.
    fn layers(&self, name: &str) -> Vec<PathBuf> {
        let resolved = self
            .store
            .store()
            .resolve(name)
            .expect("reads")
            .expect("is there");
        resolved
            .lower
            .iter()
            .map(|lower| self.store.store().layers_dir().join(lower))
            .collect()
    }

    fn layer_count(&self) -> usize {
        files::entries(&self.store.store().layers_dir())
            .expect("lists")
            .len()
    }
}

fn builder(layers: Vec<Vec<Entry>>) -> ImageBuilder {
    ImageBuilder {
        layers,
        config: serde_json::json!({"Cmd": ["/x"], "User": "7", "Entrypoint": null}),
        architecture: config::architecture().to_owned(),
    }
}

fn dir(path: &str, mode: u32) -> Entry {
    Entry::Dir(path.into(), mode)
}

fn text(path: &str, content: &str) -> Entry {
    Entry::File(path.into(), 0o644, content.into())
}

fn link(path: &str, target: &str) -> Entry {
    Entry::Link(path.into(), target.into())
}

#[tokio::test]
async fn both_archive_forms_give_the_same_image() {
    let fixture = Fixture::new();
    let builder = builder(vec![vec![text("a", "1")], vec![text("b", "2")]]);
    let mut ids = Vec::new();
    builder
        .docker_archive("one", &fixture.file())
        .expect("writes");
    ids.push(
        fixture
            .store
            .import(&fixture.file(), None)
            .await
            .expect("imports")
            .remove(0),
    );
    for compress in [Compression::None, Compression::Gzip, Compression::Zstd] {
        builder
            .oci_layout("one:latest", &fixture.file(), compress)
            .expect("writes");
        ids.push(
            fixture
                .store
                .import(&fixture.file(), None)
                .await
                .expect("imports")
                .remove(0),
        );
    }
    let packed = Compression::Gzip
        .apply(&fs::read(fixture.file()).expect("reads"))
        .expect("packs");
    fs::write(fixture.file(), packed).expect("writes");
    ids.push(
        fixture
            .store
            .import(&fixture.file(), Some("other:2"))
            .await
            .expect("imports")
            .remove(0),
    );
    assert!(ids.iter().all(|image| image.id == ids[0].id), "{ids:?}");
    let last = ids.pop().expect("one");
    assert_eq!(
        last.tags,
        ["docker.io/library/one:latest", "docker.io/library/other:2"]
    );
    assert_eq!(
        (last.user.as_str(), last.cmd, last.size),
        ("7", vec!["/x".to_owned()], 2)
    );
    assert_eq!(fixture.layer_count(), 2);
}

#[tokio::test]
async fn whiteouts_become_the_overlays() {
    let fixture = Fixture::new();
    let layers = vec![
        vec![
            dir("d", 0o755),
            text("d/gone", "x"),
            text("gone", "x"),
            dir("o", 0o755),
            text("o/x", ""),
        ],
        vec![
            text("d/.wh.gone", ""),
            text(".wh.gone", ""),
            text("o/.wh..wh..opq", ""),
            text("o/y", ""),
        ],
    ];
    fixture.import(layers, "wh").await.expect("imports");
    let top = &fixture.layers("wh")[0];
    for path in ["gone", "d/gone"] {
        let metadata = fs::symlink_metadata(top.join(path)).expect("a whiteout");
        assert!(metadata.file_type().is_char_device() && metadata.rdev() == 0);
    }
    let mut value = [0; 4];
    let length = rustix::fs::lgetxattr(top.join("o"), "trusted.overlay.opaque", &mut value[..])
        .expect("opaque");
    assert_eq!(&value[..length], b"y");
}

#[tokio::test]
async fn nothing_is_written_outside_a_layer() {
    let fixture = Fixture::new();
    let outside = fixture.dir.path().join("victim");
    fs::create_dir(&outside).expect("a directory");
    let victim = outside.display().to_string();
    // Climbing names are refused.
    for (number, name) in ["../../escape", "a/../../../escape"].iter().enumerate() {
        let layers = vec![vec![text(name, "x")]];
        let refused = fixture.import(layers, &format!("climb{number}")).await;
        assert!(refused.is_err(), "{name}: {refused:?}");
    }
    // A link's target is taken within the layer; so is an absolute name.
    let layers = vec![vec![
        link("l", &victim),
        text("l/planted", "x"),
        link("up", "../../../../../../.."),
        text("up/climbed", "x"),
        text("/absolute", "x"),
    ]];
    fixture.import(layers, "links").await.expect("imports");
    let top = &fixture.layers("links")[0];
    assert!(fs::read_dir(&outside).expect("lists").next().is_none());
    assert!(
        top.join(victim.trim_start_matches('/'))
            .join("planted")
            .exists()
    );
    assert!(top.join("climbed").exists() && top.join("absolute").exists());
    // A file replaces a link instead of following it.
    let layers = vec![vec![link("f", &format!("{victim}/file")), text("f", "x")]];
    fixture.import(layers, "replace").await.expect("imports");
    assert!(!outside.join("file").exists());
    // A hard link reaches only into the image.
    fs::write(outside.join("secret"), "s").expect("writes");
    let layers = vec![vec![Entry::Hard("h".into(), format!("{victim}/secret"))]];
    assert!(fixture.import(layers, "hard").await.is_err());
    let leftovers = files::entries(&fixture.dir.path().join("images/tmp")).expect("lists");
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[tokio::test]
async fn a_link_of_a_layer_below_shows_nothing_of_this_machine() {
    let fixture = Fixture::new();
    let outside = fixture.dir.path().join("victim");
    fs::create_dir_all(outside.join("d")).expect("directories");
    fs::write(outside.join("secret"), "s").expect("writes");
    let victim = outside.display().to_string();
    // The layer above has a directory where the one below has a link: what the link leads to is
    // hidden by it, and was never the image's.
    let layers = vec![
        vec![link("a", &victim)],
        vec![dir("a", 0o755), Entry::Hard("h".into(), "a/secret".into())],
    ];
    let refused = fixture.import(layers, "secret").await;
    let why = refused.expect_err("it is nobody's").to_string();
    assert!(why.contains("the link's target does not exist"), "{why}");
    // The same between two layers below, and an opaque directory hides as well.
    let layers = vec![
        vec![link("a", &victim), dir("o", 0o755), text("o/f", "f")],
        vec![dir("a", 0o755), dir("o", 0o755), text("o/.wh..wh..opq", "")],
        vec![text("a/new", ""), Entry::Hard("h".into(), "o/f".into())],
    ];
    assert!(fixture.import(layers, "hidden").await.is_err());
}

#[tokio::test]
async fn times_are_set_inside_a_layer_only() {
    let fixture = Fixture::new();
    let outside = fixture.dir.path().join("victim");
    fs::create_dir_all(outside.join("b")).expect("directories");
    let before = fs::metadata(outside.join("b")).expect("there").mtime();
    assert_ne!(before, 0);
    // A directory whose time is to be set becomes a link that leads to another one.
    let layers = vec![vec![
        dir("a", 0o755),
        dir("a/b", 0o755),
        link("a", &outside.display().to_string()),
    ]];
    fixture.import(layers, "times").await.expect("imports");
    let after = fs::metadata(outside.join("b")).expect("there").mtime();
    assert_eq!(after, before);
}

#[tokio::test]
async fn implied_directories_look_like_the_ones_below() {
    let fixture = Fixture::new();
    let layers = vec![
        vec![
            dir("tmp", 0o1777),
            dir("usr", 0o755),
            dir("usr/lib", 0o751),
            link("lib", "usr/lib"),
            text("usr/f", "f"),
        ],
        vec![
            text("tmp/new", ""),
            text("lib/new", ""),
            Entry::Hard("h".into(), "usr/f".into()),
        ],
    ];
    fixture.import(layers, "implied").await.expect("imports");
    let top = &fixture.layers("implied")[0];
    let mode = |path: &str| fs::symlink_metadata(top.join(path)).expect(path).mode() & 0o7777;
    assert_eq!(mode("tmp"), 0o1777);
    assert_eq!(mode("usr/lib"), 0o751);
    assert!(top.join("usr/lib/new").exists() && !top.join("lib").exists());
    assert_eq!(fs::read_to_string(top.join("h")).expect("copied up"), "f");
    assert_eq!(fs::metadata(top.join("h")).expect("there").nlink(), 2);
}

#[tokio::test]
async fn layers_are_shared_and_go_with_their_last_image() {
    let fixture = Fixture::new();
    let base = vec![text("base", "b")];
    fixture
        .import(vec![base.clone(), vec![text("one", "1")]], "one")
        .await
        .expect("imports");
    fixture
        .import(vec![base, vec![text("two", "2")]], "two")
        .await
        .expect("imports");
    assert_eq!(fixture.layer_count(), 3);
    let one = fixture
        .store
        .status("one")
        .await
        .expect("reads")
        .expect("is there");
    fixture
        .store
        .store()
        .hold(std::slice::from_ref(&one.id), "container")
        .expect("holds");
    fixture.store.remove("one").await.expect("removes");
    assert_eq!(fixture.layer_count(), 3);
    assert!(fixture.store.status("one").await.expect("reads").is_none());
    assert!(
        fixture
            .store
            .status(&one.id)
            .await
            .expect("reads")
            .is_some()
    );
    fixture
        .store
        .store()
        .release("container")
        .expect("releases");
    assert_eq!(fixture.layer_count(), 2);
    let two = fixture
        .store
        .status("two")
        .await
        .expect("reads")
        .expect("is there");
    fixture.store.remove(&two.id).await.expect("removes");
    assert_eq!(fixture.layer_count(), 0);
    assert!(fixture.store.list().await.expect("lists").is_empty());
}

#[tokio::test]
async fn images_for_other_machines_and_wrong_layers_are_refused() {
    let fixture = Fixture::new();
    let mut foreign = builder(vec![vec![text("a", "")]]);
    foreign.architecture = "s390x".into();
    foreign
        .docker_archive("foreign", &fixture.file())
        .expect("writes");
    let error = fixture
        .store
        .import(&fixture.file(), None)
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("s390x"), "{error}");
    fs::write(fixture.file(), b"not a tar file at all").expect("writes");
    assert!(fixture.store.import(&fixture.file(), None).await.is_err());
}

#[tokio::test]
async fn a_name_moves_to_the_newer_image_and_the_store_is_read_again() {
    let fixture = Fixture::new();
    let first = fixture
        .import(vec![vec![text("a", "1")]], "app:v1")
        .await
        .expect("imports");
    let second = fixture
        .import(vec![vec![text("a", "2")]], "app:v1")
        .await
        .expect("imports");
    assert_ne!(first.id, second.id);
    let other = ImageStore::open(fixture.dir.path().join("images"), ImageOptions::default())
        .expect("opens again");
    let found = other
        .status("docker.io/library/app:v1")
        .await
        .expect("reads")
        .expect("there");
    assert_eq!(found.id, second.id);
    other.remove("app:v1").await.expect("removes");
    // The first handle notices what the other did.
    assert!(
        fixture
            .store
            .status("app:v1")
            .await
            .expect("reads")
            .is_none()
    );
}
