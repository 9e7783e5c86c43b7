//! The networks as lists of sections, in the order of Darknet's `.cfg` files: what [`crate::model`] builds, [`crate::cfg`] writes and reads,
//! and [`crate::darknet`] lays weights over.
//!
//! A section's place in the list, counted from 0, is its number: the published state dicts and the comments of the `.cfg` files count so.

use repro::{Result, user};

/// One step of a network.
#[derive(Debug, Clone, PartialEq)]
pub enum Section {
    /// A convolution with zeros around that keep the size (divided by `stride`). With a norm it has no bias and is followed by a leaky
    /// rectifier of slope 0.1; without, it has a bias and nothing follows.
    Conv {
        /// Channels that leave it.
        filters: i64,
        /// Edge of the kernel, odd.
        size: i64,
        /// Pixels from one place to the next.
        stride: i64,
        /// Batch norm and rectifier.
        norm: bool,
    },
    /// The largest of `size` × `size` places. With stride 1 the map keeps its size: what lies
    /// beyond its right and lower edge counts as −∞.
    MaxPool {
        /// Edge of the window.
        size: i64,
        /// Places from one window to the next.
        stride: i64,
    },
    /// Each place becomes 2×2 of the same value.
    Upsample,
    /// Adds what left section here + `from`; nothing follows the sum.
    Shortcut {
        /// Negative.
        from: i64,
    },
    /// What left these sections, channels one after the other: a negative number counts from here, another from the start.
    Route {
        /// At least one.
        layers: Vec<i64>,
    },
    /// The output of one scale: what came is `[N, A·(5 + K), h, w]`.
    Yolo {
        /// Which of the anchors are this scale's A.
        mask: Vec<usize>,
    },
    /// The output of YOLOv1: what came is `[N, 5·B + K, S, S]`, one set of classes for each cell.
    Grid {
        /// Boxes B of each cell.
        boxes: i64,
    },
}

/// A whole network.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// From the picture of three channels on.
    pub sections: Vec<Section>,
    /// Width and height of each anchor, in pixels of the network's input, whatever its size; none for a grid.
    pub anchors: Vec<[f64; 2]>,
    /// Classes K.
    pub classes: i64,
}

/// Anchors of the COCO networks: nine clusters of its boxes (§2.3).
const ANCHORS: [[f64; 2]; 9] = [
    [10.0, 13.0],
    [16.0, 30.0],
    [33.0, 23.0],
    [30.0, 61.0],
    [62.0, 45.0],
    [59.0, 119.0],
    [116.0, 90.0],
    [156.0, 198.0],
    [373.0, 326.0],
];
/// Those of the tiny network.
const TINY_ANCHORS: [[f64; 2]; 6] =
    [[10.0, 14.0], [23.0, 27.0], [37.0, 58.0], [81.0, 82.0], [135.0, 169.0], [344.0, 319.0]];
/// Those of the small one, until a configuration gives its own: from 12 to 64 pixels, for canvases of 128.
const SMALL_ANCHORS: [[f64; 2]; 6] =
    [[12.0, 14.0], [16.0, 22.0], [26.0, 22.0], [24.0, 34.0], [38.0, 38.0], [52.0, 60.0]];
/// Boxes of a cell of YOLOv1 (§2).
const BOXES: i64 = 2;

/// Which network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Darknet-53 with three scales.
    Yolov3,
    /// The author's small network of two scales.
    Yolov3Tiny,
    /// Ours: widths of 16 to 256, a residual a level, strides 16 and 8.
    Small,
    /// Ours: the trunk of [`Variant::Small`] under YOLOv1's grid at stride 16.
    Yolov1Small,
}

/// All of them by name.
pub const VARIANTS: [(&str, Variant); 4] = [
    ("yolov3", Variant::Yolov3),
    ("yolov3_tiny", Variant::Yolov3Tiny),
    ("yolo_small", Variant::Small),
    ("yolov1_small", Variant::Yolov1Small),
];

/// Filters of a convolution, and edge or step of a window, at most: beyond them a `.cfg` is taken for damaged.
const WIDEST: i64 = 1 << 16;
const LARGEST: i64 = 1 << 10;

impl Variant {
    /// The network of this name.
    ///
    /// # Errors
    /// Lists the names.
    pub fn named(name: &str) -> Result<Self> {
        VARIANTS.iter().find(|(known, _)| *known == name).map(|(_, variant)| *variant).ok_or_else(|| {
            let names: Vec<_> = VARIANTS.iter().map(|(name, _)| *name).collect();
            user!("there is no network {name}; there are {}, or name a file that ends in .cfg", names.join(", "))
        })
    }

    /// Edge of the pictures that it is made for, in pixels.
    pub fn edge(self) -> i64 {
        match self {
            Variant::Yolov3 | Variant::Yolov3Tiny => 416,
            Variant::Small | Variant::Yolov1Small => 128,
        }
    }

    /// Its anchors.
    pub fn anchors(self) -> Vec<[f64; 2]> {
        match self {
            Variant::Yolov3 => ANCHORS.to_vec(),
            Variant::Yolov3Tiny => TINY_ANCHORS.to_vec(),
            Variant::Small => SMALL_ANCHORS.to_vec(),
            Variant::Yolov1Small => Vec::new(),
        }
    }

    /// Which anchors each scale has, the coarsest first.
    ///
    /// The author's weights of the tiny network were trained with 1, 2, 3 at the fine scale, though its `.cfg` prints 0, 1, 2.
    pub fn masks(self) -> Vec<Vec<usize>> {
        match self {
            Variant::Yolov3 => vec![vec![6, 7, 8], vec![3, 4, 5], vec![0, 1, 2]],
            Variant::Yolov3Tiny => vec![vec![3, 4, 5], vec![1, 2, 3]],
            Variant::Small => vec![vec![3, 4, 5], vec![0, 1, 2]],
            Variant::Yolov1Small => Vec::new(),
        }
    }

    /// The network for K classes with its own anchors.
    pub fn plan(self, classes: i64) -> Plan {
        self.with(classes, self.anchors(), &self.masks())
    }

    /// The network for K classes with these anchors, of which each scale has those of its mask, the coarsest first. [`Plan::check`] tells
    /// whether they fit.
    pub fn with(self, classes: i64, anchors: Vec<[f64; 2]>, masks: &[Vec<usize>]) -> Plan {
        let mask = |scale: usize| masks.get(scale).cloned().unwrap_or_default();
        let sections = match self {
            Variant::Yolov3 => yolov3(classes, mask),
            Variant::Yolov3Tiny => tiny(classes, mask),
            Variant::Small => small(classes, mask),
            Variant::Yolov1Small => yolov1_small(classes),
        };
        Plan { sections, anchors, classes }
    }
}

fn conv(filters: i64, size: i64, stride: i64) -> Section {
    Section::Conv { filters, size, stride, norm: true }
}

/// The convolution that gives a scale its numbers, and the scale.
fn detection(classes: i64, mask: Vec<usize>) -> [Section; 2] {
    let filters = mask.len() as i64 * (5 + classes);
    [Section::Conv { filters, size: 1, stride: 1, norm: false }, Section::Yolo { mask }]
}

/// `count` blocks of a 1×1 convolution to half the channels and a 3×3 one back, added to what came (Table 1).
fn residuals(count: usize, width: i64) -> Vec<Section> {
    let block = [conv(width / 2, 1, 1), conv(width, 3, 1), Section::Shortcut { from: -3 }];
    std::iter::repeat_n(block, count).flatten().collect()
}

/// Table 1 without its classifier.
fn darknet53() -> Vec<Section> {
    let mut sections = vec![conv(32, 3, 1)];
    for (width, blocks) in [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)] {
        sections.push(conv(width, 3, 2));
        sections.extend(residuals(blocks, width));
    }
    sections
}

/// §2.3: from each scale back two convolutions, up by two, and on with the trunk's map of that size.
fn yolov3(classes: i64, mask: impl Fn(usize) -> Vec<usize>) -> Vec<Section> {
    let mut sections = darknet53();
    for (scale, (width, trunk)) in [(512, None), (256, Some(61)), (128, Some(36))].into_iter().enumerate() {
        if let Some(trunk) = trunk {
            sections.push(Section::Route { layers: vec![-4] });
            sections.extend([conv(width, 1, 1), Section::Upsample, Section::Route { layers: vec![-1, trunk] }]);
        }
        sections.extend(std::iter::repeat_n([conv(width, 1, 1), conv(2 * width, 3, 1)], 3).flatten());
        sections.extend(detection(classes, mask(scale)));
    }
    sections
}

fn tiny(classes: i64, mask: impl Fn(usize) -> Vec<usize>) -> Vec<Section> {
    let mut sections = Vec::new();
    for (width, stride) in [(16, 2), (32, 2), (64, 2), (128, 2), (256, 2), (512, 1)] {
        sections.extend([conv(width, 3, 1), Section::MaxPool { size: 2, stride }]);
    }
    sections.extend([conv(1024, 3, 1), conv(256, 1, 1), conv(512, 3, 1)]);
    sections.extend(detection(classes, mask(0)));
    sections.extend([Section::Route { layers: vec![-4] }, conv(128, 1, 1), Section::Upsample]);
    sections.extend([Section::Route { layers: vec![-1, 8] }, conv(256, 3, 1)]);
    sections.extend(detection(classes, mask(1)));
    sections
}

/// Darknet-53's form with widths of 16 to 256; 128 channels at stride 8, 256 at stride 16.
fn small_trunk() -> Vec<Section> {
    let mut sections = vec![conv(16, 3, 1)];
    for (width, blocks) in [(32, 1), (64, 1), (128, 2), (256, 1)] {
        sections.push(conv(width, 3, 2));
        sections.extend(residuals(blocks, width));
    }
    sections
}

/// Section of the small trunk that leaves its map at stride 8.
const SMALL_AT_8: i64 = 15;

/// The small trunk by itself: its sections, and the places and channels of its maps at strides 8 and 16.
pub(crate) fn small_levels() -> (Plan, [usize; 2], [i64; 2]) {
    let sections = small_trunk();
    let places = [SMALL_AT_8 as usize, sections.len() - 1];
    (Plan { sections, anchors: Vec::new(), classes: 1 }, places, [128, 256])
}

fn small(classes: i64, mask: impl Fn(usize) -> Vec<usize>) -> Vec<Section> {
    let mut sections = small_trunk();
    sections.extend([conv(128, 1, 1), conv(256, 3, 1)]);
    sections.extend(detection(classes, mask(0)));
    sections.extend([Section::Route { layers: vec![-4] }, conv(64, 1, 1), Section::Upsample]);
    sections.extend([Section::Route { layers: vec![-1, SMALL_AT_8] }, conv(128, 3, 1)]);
    sections.extend(detection(classes, mask(1)));
    sections
}

fn yolov1_small(classes: i64) -> Vec<Section> {
    let mut sections = small_trunk();
    let last = Section::Conv { filters: 5 * BOXES + classes, size: 1, stride: 1, norm: false };
    sections.extend([conv(256, 3, 1), last, Section::Grid { boxes: BOXES }]);
    sections
}

/// What leaves a section: channels, and how many pixels of the input an edge of a place covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaves {
    /// C
    pub channels: i64,
    /// Pixels.
    pub stride: i64,
}

/// What a picture is.
pub const PICTURE: Leaves = Leaves { channels: 3, stride: 1 };

impl Plan {
    /// The section that `layer` of section `at` means.
    pub(crate) fn place(at: usize, layer: i64) -> Option<usize> {
        let place = if layer < 0 { at as i64 + layer } else { layer };
        usize::try_from(place).ok().filter(|&place| place < at)
    }

    /// What leaves each section.
    ///
    /// # Errors
    /// In one sentence what does not fit: a section that looks at what is not there, sizes that cannot be added, an output that lacks anchors
    /// or has other channels than these classes need.
    pub fn check(&self) -> Result<Vec<Leaves>> {
        let left = self.leaves()?;
        let count = |is: fn(&Section) -> bool| self.sections.iter().filter(|section| is(section)).count();
        let scales = count(|section| matches!(section, Section::Yolo { .. }));
        match (scales, count(|section| matches!(section, Section::Grid { .. }))) {
            (0, 0) => Err(user!("the network has no output: it needs a [yolo] or a [detection] section")),
            (_, 0) | (0, 1) => Ok(left),
            (scales, grids) => {
                let outputs = scales + grids;
                Err(user!("the network has {outputs} outputs, of which {grids} are grids; a grid must be the only one"))
            }
        }
    }

    /// As [`Self::check`], with or without outputs.
    pub(crate) fn leaves(&self) -> Result<Vec<Leaves>> {
        let mut left: Vec<Leaves> = Vec::new();
        if !(1..=100_000).contains(&self.classes) {
            return Err(user!("{} classes are none; there must be at least 1", self.classes));
        }
        if let Some(anchor) =
            self.anchors.iter().find(|anchor| !anchor.iter().all(|&side| side.is_finite() && side > 0.0))
        {
            return Err(user!("the anchor {anchor:?} is no width and height in pixels; both must be above 0"));
        }
        for (at, section) in self.sections.iter().enumerate() {
            let came = left.last().copied().unwrap_or(PICTURE);
            let wrong = |why: String| user!("section {at} ({}) does not fit: {why}", section.name());
            let other = |layer: i64| {
                let place = Self::place(at, layer);
                place.map(|place| left[place]).ok_or_else(|| wrong(format!("there is no section {layer} before it")))
            };
            let leaves = match section {
                Section::Conv { filters, size, stride, .. } => {
                    let fits = (1..=WIDEST).contains(filters)
                        && (1..=LARGEST).contains(size)
                        && size % 2 == 1
                        && (1..=LARGEST).contains(stride);
                    if !fits {
                        return Err(wrong(format!("{filters} filters of {size}×{size}, stride {stride}, are none")));
                    }
                    Leaves { channels: *filters, stride: came.stride * stride }
                }
                Section::MaxPool { size, stride } if (1..=LARGEST).contains(size) && (1..=*size).contains(stride) => {
                    Leaves { stride: came.stride * stride, ..came }
                }
                Section::MaxPool { size, stride } => {
                    return Err(wrong(format!("windows of {size} cannot be {stride} apart")));
                }
                Section::Upsample if came.stride % 2 == 0 => Leaves { stride: came.stride / 2, ..came },
                Section::Upsample => return Err(wrong("what comes is not smaller than the picture".into())),
                Section::Shortcut { from } => {
                    let theirs = other(*from)?;
                    if theirs != came {
                        let (a, b) = (came, theirs);
                        return Err(wrong(format!(
                            "{} channels at stride {} cannot be added to {} at stride {}",
                            a.channels, a.stride, b.channels, b.stride
                        )));
                    }
                    came
                }
                Section::Route { layers } => {
                    let parts = layers.iter().map(|&layer| other(layer)).collect::<Result<Vec<_>>>()?;
                    let Some(first) = parts.first() else { return Err(wrong("it names no section".into())) };
                    if parts.iter().any(|part| part.stride != first.stride) {
                        return Err(wrong("the maps that it joins differ in size".into()));
                    }
                    Leaves { channels: parts.iter().map(|part| part.channels).sum(), ..*first }
                }
                Section::Yolo { mask } => {
                    if let Some(anchor) = mask.iter().find(|&&anchor| anchor >= self.anchors.len()) {
                        return Err(wrong(format!("anchor {anchor} is none of the {}", self.anchors.len())));
                    }
                    let needed = mask.len() as i64 * (5 + self.classes);
                    if mask.is_empty() || came.channels != needed {
                        return Err(wrong(format!(
                            "{} anchors of {} classes need {needed} channels, and {} come",
                            mask.len(),
                            self.classes,
                            came.channels
                        )));
                    }
                    came
                }
                Section::Grid { boxes } => {
                    let needed = 5 * boxes + self.classes;
                    if *boxes < 1 || came.channels != needed {
                        return Err(wrong(format!(
                            "{boxes} boxes and {} classes need {needed} channels, and {} come",
                            self.classes, came.channels
                        )));
                    }
                    came
                }
            };
            left.push(leaves);
        }
        Ok(left)
    }

    /// Pixels of which an edge of a picture must be a multiple.
    ///
    /// # Errors
    /// Those of [`Self::check`].
    pub fn stride(&self) -> Result<i64> {
        Ok(self.check()?.iter().map(|leaves| leaves.stride).max().unwrap_or(1))
    }

    /// The masks of the scales, in their order.
    pub fn masks(&self) -> Vec<&[usize]> {
        fn mask(section: &Section) -> Option<&[usize]> {
            match section {
                Section::Yolo { mask } => Some(mask),
                _ => None,
            }
        }
        self.sections.iter().filter_map(mask).collect()
    }

    /// Boxes of a cell, of a network with a grid.
    pub fn grid(&self) -> Option<i64> {
        self.sections.iter().find_map(|section| match section {
            Section::Grid { boxes } => Some(*boxes),
            _ => None,
        })
    }

    /// Numbers of the sections whose convolution feeds an output: what knows the classes.
    pub fn heads(&self) -> Vec<usize> {
        let is_output = |section: &Section| matches!(section, Section::Yolo { .. } | Section::Grid { .. });
        (1..self.sections.len()).filter(|&at| is_output(&self.sections[at])).map(|at| at - 1).collect()
    }

    /// The same network for other classes.
    pub fn for_classes(&self, classes: i64) -> Plan {
        let mut plan = Plan { classes, ..self.clone() };
        for at in self.heads() {
            let boxes = match &self.sections[at + 1] {
                Section::Yolo { mask } => mask.len() as i64 * (5 + classes),
                Section::Grid { boxes } => 5 * boxes + classes,
                _ => continue,
            };
            if let Section::Conv { filters, .. } = &mut plan.sections[at] {
                *filters = boxes;
            }
        }
        plan
    }
}

impl Section {
    /// Its heading in a `.cfg` file.
    pub fn name(&self) -> &'static str {
        match self {
            Section::Conv { .. } => "convolutional",
            Section::MaxPool { .. } => "maxpool",
            Section::Upsample => "upsample",
            Section::Shortcut { .. } => "shortcut",
            Section::Route { .. } => "route",
            Section::Yolo { .. } => "yolo",
            Section::Grid { .. } => "detection",
        }
    }
}
