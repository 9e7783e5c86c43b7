//! The names of classes, by label, of the sets that are known here.

/// The digits of MNIST.
pub const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Of Fashion-MNIST, from the data set's own page.
pub const FASHION: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// Of CIFAR-10, from the data set's own page.
pub const CIFAR10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The ten folders of Imagenette, by name, and the classes of ImageNet that they hold.
pub const IMAGENETTE: [(&str, &str); 10] = [
    ("n01440764", "tench"),
    ("n02102040", "English springer"),
    ("n02979186", "cassette player"),
    ("n03000684", "chain saw"),
    ("n03028079", "church"),
    ("n03394916", "French horn"),
    ("n03417042", "garbage truck"),
    ("n03425413", "gas pump"),
    ("n03445777", "golf ball"),
    ("n03888257", "parachute"),
];

/// The 1,000 classes of ImageNet; see the licence beside the file.
pub fn imagenet() -> Vec<&'static str> {
    include_str!("../assets/imagenet_classes.txt").lines().collect()
}

#[test]
fn the_classes_of_imagenet_are_a_thousand_and_distinct() {
    let names = imagenet();
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!((names.len(), distinct.len()), (1000, 1000));
    assert!(IMAGENETTE.iter().all(|(_, name)| names.contains(name)));
}
