# SPDX-FileCopyrightText: 2026 The Towline Authors
# SPDX-License-Identifier: Apache-2.0

# towline_library(NAME [SOURCES ...] [TESTS ...] [DEPS ...] [PRIVATE ...])
#   One static library per folder under src/, called towline_NAME, and one test binary NAME_tests
#   from the *_test.cpp files beside the code. DEPS are other folders or packages seen by users of
#   the headers; PRIVATE packages are linked but not exposed.
function(towline_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;TESTS;DEPS;PRIVATE" ${ARGN})
  add_library(towline_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(towline_${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE})
  if(TOWLINE_TESTS AND ARG_TESTS)
    add_executable(${name}_tests ${ARG_TESTS})
    target_link_libraries(${name}_tests PRIVATE towline_${name} GTest::gtest_main)
    set_target_properties(${name}_tests PROPERTIES RUNTIME_OUTPUT_DIRECTORY
                                                   ${CMAKE_BINARY_DIR}/tests)
    add_test(NAME ${name} COMMAND ${name}_tests WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set(seconds 900)
    if(TOWLINE_SANITIZE)
      set(seconds 7200)
    endif()
    set_tests_properties(${name} PROPERTIES TIMEOUT ${seconds})
  endif()
endfunction()
