//! Several views of each picture.

use super::{Augment, Cursor, Draws, Images, Pictures, Pipeline, Source};
use crate::{Result, user};

/// Pictures of which each step sees several views: the same pictures in the same order, each view with draws and augmentations of its own. A
/// photo is decoded once for all of them, and cut by `view.train` anew for each.
///
/// `Views::new(pictures, &[("view1", &augment), ("view2", &augment)])`, or `&[("weak", &weak), ("strong", &strong)]`.
#[derive(Debug)]
pub struct Views {
    /// What evaluation sees; its own augmentations are not used.
    pub pictures: Pictures,
    /// The salt of each view's draws and what is done to it.
    views: Vec<(String, Pipeline)>,
}

impl Views {
    /// `pictures` in a view for each name and list; the name is [`Draws::salt`].
    ///
    /// # Errors
    /// No views, or two of one name; what [`Pipeline::new`] refuses.
    pub fn new(pictures: Pictures, views: &[(&str, &[Augment])]) -> Result<Self> {
        if views.is_empty() {
            return Err(user!("a picture must be seen in at least one view"));
        }
        for (place, (name, _)) in views.iter().enumerate() {
            if views[..place].iter().any(|(other, _)| other == name) {
                return Err(user!("two views are called `{name}`, so that they would be one; choose another name"));
            }
        }
        let pipeline = |list: &[Augment]| match &pictures {
            Pictures::Resident(data) => data.pipeline_of(list.to_vec()),
            Pictures::Stream(data) => data.pipeline_of(list.to_vec()),
        };
        let views: Result<_> = views.iter().map(|(name, list)| Ok(((*name).to_string(), pipeline(list)?))).collect();
        Ok(Self { views: views?, pictures })
    }

    /// The views' own lists on any pictures in [0, 1], such as those of the test set. Of photos without what is done as they are read: the cut of
    /// `view.train`, and a mirror image.
    ///
    /// # Errors
    /// libtorch's.
    pub fn of(&self, images: &Images, draws: Draws) -> Result<Vec<Images>> {
        self.views.iter().map(|(salt, pipeline)| pipeline.view(images, Draws { salt, ..draws })).collect()
    }
}

impl Source for Views {
    /// One for each view, in their order.
    type Batch = Vec<Images>;

    fn len(&self) -> u64 {
        self.pictures.len()
    }

    fn batches(&self, from: Cursor) -> Box<dyn Iterator<Item = Result<Vec<Images>>> + '_> {
        match &self.pictures {
            Pictures::Resident(data) => data.seen(from, |images, draws| self.of(&images, draws)),
            Pictures::Stream(data) => {
                data.seen(from, self.views.iter().map(|(salt, pipeline)| (salt.as_str(), pipeline)).collect())
            }
        }
    }

    fn sha256(&self) -> String {
        self.pictures.sha256()
    }

    fn notes(&self) -> Vec<String> {
        self.pictures.notes()
    }
}
