#include <stdio.h>

void store_text(char *out, int value) {
    sprintf(out, "%d", value);
}
