#ifndef ALONE_H
#define ALONE_H
bool store_alone(void);
#endif
