/* The three files of an evaluation, parsed and indexed by scan. Internal to evaluation/.
 *
 * The parser is strict: a wrong header, a missing or surplus field, a number that is none or not finite, a series
 * listed twice: ERR_INPUT with file and line. Rows of series that are not listed are checked and then left out, as
 * the official script does. */
#ifndef EVALUATION_DATASET_H
#define EVALUATION_DATASET_H

#include "pulmo.h"

struct truth {
    size_t scan; /* index into series */
    double xyz_mm[3], diameter_mm;
    bool included;
    enum texture texture;
};
enum mark_value { /* the optional columns that are numbers */
                  MARK_DIAMETER_MM = 0,
                  MARK_MUTUAL_INFORMATION_NATS,
                  MARK_ENTROPY_NATS,
                  MARK_PROBABILITY_LOW,
                  MARK_PROBABILITY_HIGH,
                  MARK_VALUES
};
struct mark {
    size_t scan;
    double xyz_mm[3], score;
    double value[MARK_VALUES]; /* NAN where the file does not say */
    enum texture texture;
};
struct dataset {
    char **series; /* sorted; each owned */
    size_t series_count;
    struct truth *truths; /* by scan, included ones first, else in the file's order */
    size_t truth_count;
    struct mark *marks; /* by scan, else in the file's order */
    size_t mark_count;
};

/* Text as of files; the names appear in errors. On failure *out is untouched. */
struct dataset_text {
    const struct bytes *series, *truth, *marks;
    const char *series_name, *truth_name, *marks_name;
};
bool dataset_parse(const struct dataset_text *text, struct dataset *out, struct err *err) PULMO_MUST_USE;
void dataset_free(struct dataset *dataset);

#endif
