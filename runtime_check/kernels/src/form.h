/* How a tensor lies in memory inside a chain of layers. */
#ifndef SPARSE_FORM_H
#define SPARSE_FORM_H

#include <stdbool.h>
#include <stdint.h>

/* As ONNX has it where `group_rows` is 0. Otherwise one vector holds a pixel of eight groups of image rows: element l
   is image row l * group_rows + r. Rows and columns of zeros, and rows of the neighbouring groups, lie around a group
   where convolutions read it, so that a window at any place of it finds whole vectors; only columns of zeros where just
   layers of windows do, which make the rows. */
struct form {
  int64_t group_rows;
  int64_t top, bottom, left, right; /* rows and columns around the group */
  int64_t row_bytes, pitch;         /* from one row to the next, from one channel to the next */
};

static inline bool in_lanes(const struct form *form) { return form->group_rows > 0; }

/* Whether anything around the rows of an image has to be filled in: a border, or rows below the image in its lanes. */
static inline bool has_border(const struct form *form, int64_t height) {
  if (!in_lanes(form)) return false;
  return form->top || form->bottom || form->left || form->right || height % form->group_rows;
}

#endif
