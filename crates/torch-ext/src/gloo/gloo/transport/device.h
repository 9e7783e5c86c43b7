// Named by ProcessGroupGloo.hpp, which uses nothing from it. See context.h.
#pragma once
