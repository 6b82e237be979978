/* Which values of a chain are kept in lanes. */
#ifndef SPARSE_FORMS_H
#define SPARSE_FORMS_H

#include "chain.h"

/* Fill in the forms of values whose extents are known, all but the pitches. */
void forms_choose(const struct chain *chain, struct value *values);

/* Output rows of one lane in a step, 0 where neither its input nor its output is in lanes. */
int64_t forms_group_rows(const struct step *step, const struct value *values);

/* Whether a step reads its input in lanes as it is; otherwise it makes a copy. */
/* The form that a step brings each channel of x into before its windows go over it: plain where it does not. */
struct form forms_stage(const struct step *step, const struct value *values);
bool forms_direct(const struct step *step, const struct value *values);

#endif
