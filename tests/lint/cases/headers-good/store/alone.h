#ifndef ALONE_H
#define ALONE_H
#include <stdbool.h>
bool store_alone(void);
#endif
