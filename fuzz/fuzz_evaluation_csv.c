/* Any bytes as the three files of an evaluation, cut at two NUL bytes: series, truth, marks. What parses is scored. */
#include "evaluation/candidates.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The part up to the next NUL, as a view that nobody frees. */
static struct bytes part_next(const uint8_t **data, size_t *size) {
    const uint8_t *end = *size ? memchr(*data, 0, *size) : NULL;
    size_t length = end ? (size_t)(end - *data) : *size;
    struct bytes part = {.data = (uint8_t *)(uintptr_t)*data, .size = length};
    *data += length + (end != NULL);
    *size -= length + (end != NULL);
    return part;
}

/* Probabilities, uncertainties, diameters and textures. */
static void judge(const struct dataset *dataset, const struct outcomes *outcomes) {
    const struct evaluation_config config = {.bootstrap_count = 3, .seed = 1, .operating_point = 0.5};
    struct candidates candidates = {0};
    struct evaluation evaluation = {0};
    struct err err = {0};
    if (candidates_select(dataset, outcomes, &candidates, &err) &&
        reliability_measure(&candidates, &config, &evaluation.reliability, &err) &&
        triage_measure(&candidates, &config, &evaluation.triage, &err) &&
        diameters_compare(dataset, outcomes, &evaluation.diameter, &err))
        textures_compare(dataset, outcomes, evaluation.texture);
    candidates_free(&candidates);
    evaluation_free(&evaluation);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct bytes series = part_next(&data, &size), truth = part_next(&data, &size), marks = part_next(&data, &size);
    const struct dataset_text text = {&series, &truth, &marks, "series", "truth", "marks"};
    struct dataset dataset = {0};
    struct outcomes outcomes = {0};
    struct froc_summary summary;
    struct err err = {0};
    if (dataset_parse(&text, &dataset, &err) && outcomes_match(&dataset, 2, &outcomes, &err)) {
        froc_summarise(&outcomes, NULL, &summary);
        judge(&dataset, &outcomes);
    }
    outcomes_free(&outcomes);
    dataset_free(&dataset);
    return 0;
}
